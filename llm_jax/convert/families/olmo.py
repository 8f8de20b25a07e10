"""OLMo 1 to 3 (Groeneveld et al. 2024, OLMo Team 2024, 2025)."""

from llm_jax.convert.families import names
from llm_jax.convert.families.family import FIELDS, Family, Naming
from llm_jax.convert.families.parts import activation, biases, same, windows
from llm_jax.convert.families.rope import layered_rope, rope

BIASES = biases(qkv="attention_bias", out="attention_bias")
AFTER = {"pre_norm": False, "post_norm": True, "qk_norm": True, "qk_norm_over": "width"}
LENGTH = {"max_position_embeddings": 2048}

OLMO = Family(
    model_type="olmo",
    architecture="OlmoForCausalLM",
    naming=Naming(names.LLAMA),
    fields={name: key for name, key in FIELDS.items() if name not in ("norm_eps", "head_dim")},
    always={"norm": "layernorm", "norm_weights": "none", "norm_eps": 1e-5},
    defaults=LENGTH,
    parts=(rope(), activation(), BIASES, same(qkv_clip="clip_qkv")),
)
OLMO2 = Family(
    model_type="olmo2",
    architecture="Olmo2ForCausalLM",
    naming=Naming(names.LLAMA | names.TWO_NORMS_AFTER),
    always=AFTER,
    defaults={**LENGTH, "rms_norm_eps": 1e-5},
    parts=(rope(), activation(), BIASES),
)
OLMO3 = Family(
    model_type="olmo3",
    architecture="Olmo3ForCausalLM",
    naming=Naming(names.LLAMA | names.TWO_NORMS_AFTER),
    always=AFTER,
    defaults={**LENGTH, "rms_norm_eps": 1e-5},
    parts=(layered_rope(5e5, 5e5), activation(), BIASES, windows("LLLG", 4096)),
)
