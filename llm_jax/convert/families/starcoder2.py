"""StarCoder 2 (Lozhkov et al. 2024): LayerNorm, biases, windows, an MLP without a gate."""

from llm_jax.convert.families import names
from llm_jax.convert.families.family import FIELDS_BUT_HEAD_DIM, Family, Naming
from llm_jax.convert.families.parts import activation, biases, windows
from llm_jax.convert.families.rope import rope

MLP = {
    "blocks/mlp/up": "model.layers.{}.mlp.c_fc.weight",
    "blocks/mlp/up_bias": "model.layers.{}.mlp.c_fc.bias",
    "blocks/mlp/down": "model.layers.{}.mlp.c_proj.weight",
    "blocks/mlp/down_bias": "model.layers.{}.mlp.c_proj.bias",
}

STARCODER2 = Family(
    model_type="starcoder2",
    architecture="Starcoder2ForCausalLM",
    naming=Naming(names.LLAMA | MLP),
    fields=FIELDS_BUT_HEAD_DIM | {"norm_eps": "norm_epsilon"},
    always={"norm": "layernorm"},
    defaults={
        "max_position_embeddings": 4096,
        "num_key_value_heads": 2,
        "norm_epsilon": 1e-5,
        "tie_word_embeddings": True,
    },
    parts=(
        rope(),
        activation({"gelu": "gelu_pytorch_tanh", "gelu_exact": "gelu"}, default="gelu_new"),
        biases(True, qkv="use_bias", out="use_bias", mlp="use_bias"),
        windows(by_layer=False),
    ),
)
