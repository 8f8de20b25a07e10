"""Apertus (Swiss AI 2025): the xIELU without a gate, normed queries and keys."""

from llm_jax.convert.families import names
from llm_jax.convert.families.family import Family, Naming
from llm_jax.convert.families.parts import activation, biases
from llm_jax.convert.families.rope import rope

NORMS = {
    "blocks/attn_norm/scale": "model.layers.{}.attention_layernorm.weight",
    "blocks/mlp_norm/scale": "model.layers.{}.feedforward_layernorm.weight",
}
XIELU = {
    "blocks/mlp/xielu/alpha_p": "model.layers.{}.mlp.act_fn.alpha_p",
    "blocks/mlp/xielu/alpha_n": "model.layers.{}.mlp.act_fn.alpha_n",
}

APERTUS = Family(
    model_type="apertus",
    architecture="ApertusForCausalLM",
    naming=Naming(
        names.LLAMA | NORMS | XIELU,
        constants={
            "model.layers.{}.mlp.act_fn.beta": 0.5,
            "model.layers.{}.mlp.act_fn.eps": -1e-6,
        },
    ),
    always={"qk_norm": True},
    defaults={"max_position_embeddings": 65536, "rms_norm_eps": 1e-5},
    parts=(
        rope(
            1.2e7,
            extra={
                "rope_type": "llama3",
                "rope_theta": 1.2e7,
                "factor": 8.0,
                "original_max_position_embeddings": 8192,
            },
        ),
        activation({"xielu": "xielu"}, default="xielu"),
        biases(qkv="attention_bias", out="attention_bias"),
    ),
)
