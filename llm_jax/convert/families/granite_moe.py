"""Granite 3 with experts (IBM 2024). All experts of a layer are one tensor, gate before up."""

from llm_jax.convert.families import names
from llm_jax.convert.families.experts import every_layer
from llm_jax.convert.families.family import FIELDS_BUT_HEAD_DIM, Family, Naming
from llm_jax.convert.families.granite import MULTIPLIERS
from llm_jax.convert.families.parts import activation, biases
from llm_jax.convert.families.rope import rope

EXPERTS = "model.layers.{}.block_sparse_moe"

GRANITE_MOE = Family(
    model_type="granitemoe",
    architecture="GraniteMoeForCausalLM",
    naming=Naming(
        names.LLAMA
        | {
            "blocks/moe/router": f"{EXPERTS}.router.layer.weight",
            "blocks/moe/gate": f"{EXPERTS}.input_linear.weight",
            "blocks/moe/up": f"{EXPERTS}.input_linear.weight",
            "blocks/moe/down": f"{EXPERTS}.output_linear.weight",
        },
        experts="joined",
    ),
    fields=FIELDS_BUT_HEAD_DIM,
    defaults={"max_position_embeddings": 2048},
    parts=(
        rope(),
        activation(),
        biases(qkv="attention_bias", out="attention_bias"),
        MULTIPLIERS,
        every_layer(),
    ),
)
