"""Phi-3 and Phi-4 (Abdin et al. 2024). On file, query, key and value are one matrix, and so are the
two that read the MLP's input."""

from llm_jax.convert.families import names
from llm_jax.convert.families.family import Family, Naming
from llm_jax.convert.families.parts import activation, windows
from llm_jax.convert.families.rope import rope

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
