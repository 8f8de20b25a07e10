"""EXAONE 4 (LG AI Research 2025): norms after the sub-layers, positions only beside windows."""

from llm_jax.convert.families import names
from llm_jax.convert.families.family import Family, Naming
from llm_jax.convert.families.parts import activation, windows
from llm_jax.convert.families.rope import rope

EXAONE4 = Family(
    model_type="exaone4",
    architecture="Exaone4ForCausalLM",
    naming=Naming(names.LLAMA | names.TWO_NORMS_AFTER),
    always={"pre_norm": False, "post_norm": True, "qk_norm": True},
    defaults={
        "max_position_embeddings": 2048,
        "num_key_value_heads": 32,
        "rms_norm_eps": 1e-5,
    },
    parts=(
        rope(),
        activation(),
        windows("LLLG", 4096, pattern_key="sliding_window_pattern", nope=True),
    ),
)
