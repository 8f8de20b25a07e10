"""GLM-4 (Team GLM 2024; the second with norms after the sub-layers, too): half of each head is
rotated, in pairs that are neighbours on file; the MLP's two inner matrices are one."""

from llm_jax.convert.families import names
from llm_jax.convert.families.family import Family, Naming
from llm_jax.convert.families.parts import activation, biases
from llm_jax.convert.families.rope import rope

DEFAULTS = {
    "max_position_embeddings": 131072,
    "num_key_value_heads": 2,
    "head_dim": 128,
    "rms_norm_eps": 1.5625e-7,
    "attention_bias": True,
}
PARTS = (rope(fraction=0.5), activation(), biases(qkv="attention_bias"))
AFTER = {
    "blocks/attn_post_norm/scale": "model.layers.{}.post_self_attn_layernorm.weight",
    "blocks/mlp_post_norm/scale": "model.layers.{}.post_mlp_layernorm.weight",
}

GLM = Family(
    model_type="glm",
    architecture="GlmForCausalLM",
    naming=Naming(names.LLAMA | names.FUSED_MLP, pairs="interleaved"),
    defaults=DEFAULTS,
    parts=PARTS,
)
GLM4 = Family(
    model_type="glm4",
    architecture="Glm4ForCausalLM",
    naming=Naming(names.LLAMA | names.FUSED_MLP | AFTER, pairs="interleaved"),
    always={"post_norm": True},
    defaults=DEFAULTS,
    parts=PARTS,
)
