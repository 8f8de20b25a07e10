"""OLMoE (Muennighoff et al. 2024): experts in each layer, norms over all queries and all keys."""

from llm_jax.convert.families import names
from llm_jax.convert.families.experts import QWEN, SPARSE, every_layer
from llm_jax.convert.families.family import FIELDS_BUT_HEAD_DIM, Family, Naming
from llm_jax.convert.families.parts import activation, biases
from llm_jax.convert.families.rope import rope

KEYS = {**QWEN, "d_ff": "intermediate_size"}

OLMOE = Family(
    model_type="olmoe",
    architecture="OlmoeForCausalLM",
    naming=Naming(names.LLAMA | SPARSE),
    fields=FIELDS_BUT_HEAD_DIM,
    always={"qk_norm": True, "qk_norm_over": "width"},
    defaults={
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "router_aux_loss_coef": 0.01,
    },
    fixed={"clip_qkv": None},  # transformers clips after the norm of queries and keys
    parts=(
        rope(),
        activation(),
        biases(qkv="attention_bias", out="attention_bias"),
        every_layer(KEYS, experts=64, top_k=8),
    ),
    aliases={"num_local_experts": "num_experts"},
)
