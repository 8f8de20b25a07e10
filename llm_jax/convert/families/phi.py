"""Phi 1.5 and 2 (Li et al. 2023): parallel blocks after one norm, an output bias. Phi-3 and Phi-4
(Abdin et al. 2024): on file, query, key and value are one matrix, and so are gate and up."""

from llm_jax.convert.families import names
from llm_jax.convert.families.family import FIELDS_BUT_HEAD_DIM, Family, Naming
from llm_jax.convert.families.parts import PLAIN, activation, windows
from llm_jax.convert.families.rope import rope

NAMES = {
    "blocks/attn/o": "model.layers.{}.self_attn.dense.weight",
    "blocks/attn/o_bias": "model.layers.{}.self_attn.dense.bias",
    "blocks/mlp/up": "model.layers.{}.mlp.fc1.weight",
    "blocks/mlp/up_bias": "model.layers.{}.mlp.fc1.bias",
    "blocks/mlp/down": "model.layers.{}.mlp.fc2.weight",
    "blocks/mlp/down_bias": "model.layers.{}.mlp.fc2.bias",
    "final_norm/scale": "model.final_layernorm.weight",
    "final_norm/bias": "model.final_layernorm.bias",
    "unembed_bias": "lm_head.bias",
}

PHI = Family(
    model_type="phi",
    architecture="PhiForCausalLM",
    naming=Naming(names.LLAMA | NAMES),
    fields=FIELDS_BUT_HEAD_DIM | {"norm_eps": "layer_norm_eps"},
    always={
        "norm": "layernorm",
        "parallel_block": "one_norm",
        "biases": ("qkv", "out", "mlp", "unembed"),
    },
    defaults={"max_position_embeddings": 2048, "layer_norm_eps": 1e-5},
    fixed={"qk_layernorm": False},
    parts=(rope(fraction=0.5), activation(PLAIN, default="gelu_new")),
)
PHI3 = Family(
    model_type="phi3",
    architecture="Phi3ForCausalLM",
    naming=Naming(names.LLAMA | names.FUSED_QKV | names.FUSED_MLP),
    defaults={
        "max_position_embeddings": 4096,
        "original_max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
    },
    parts=(
        rope(fraction=1.0, kinds=("default", "longrope")),
        activation(),
        windows(by_layer=False),
    ),
)
