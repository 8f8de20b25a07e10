"""Mistral and Mixtral (Jiang et al. 2023, 2024), Ministral with windows in some layers, and
Ministral 3, whose queries grow with their position."""

from llm_jax.convert.families import names
from llm_jax.convert.families.experts import MIXTRAL_EXPERTS
from llm_jax.convert.families.family import Family, Naming
from llm_jax.convert.families.parts import activation, windows
from llm_jax.convert.families.rope import rope

LENGTH = {"max_position_embeddings": 131072}

MISTRAL = Family(
    model_type="mistral",
    architecture="MistralForCausalLM",
    naming=Naming(names.LLAMA),
    defaults=LENGTH,
    parts=(rope(), activation(), windows(default=4096, by_layer=False)),
)
MINISTRAL = Family(
    model_type="ministral",
    architecture="MinistralForCausalLM",
    naming=Naming(names.LLAMA),
    defaults=LENGTH,
    parts=(rope(), activation(), windows(default=4096)),
)
MINISTRAL3 = Family(
    model_type="ministral3",
    architecture="Ministral3ForCausalLM",
    naming=Naming(names.LLAMA),
    defaults={"max_position_embeddings": 262144, "head_dim": 128, "rms_norm_eps": 1e-5},
    parts=(
        rope(
            kinds=("yarn",),
            growing_queries=True,
            extra={
                "rope_type": "yarn",
                "rope_theta": 1e6,
                "factor": 16.0,
                "original_max_position_embeddings": 16384,
                "mscale": 1.0,
                "mscale_all_dim": 1.0,
                "llama_4_scaling_beta": 0.1,
            },
        ),
        activation(),
        windows(by_layer=False),
    ),
)
MIXTRAL = Family(
    model_type="mixtral",
    architecture="MixtralForCausalLM",
    naming=Naming(
        names.LLAMA
        | {
            "blocks/moe/router": "model.layers.{}.block_sparse_moe.gate.weight",
            "blocks/moe/gate": "model.layers.{}.block_sparse_moe.experts.{}.w1.weight",
            "blocks/moe/down": "model.layers.{}.block_sparse_moe.experts.{}.w2.weight",
            "blocks/moe/up": "model.layers.{}.block_sparse_moe.experts.{}.w3.weight",
        }
    ),
    defaults=LENGTH,
    parts=(rope(1e6), activation(), windows(by_layer=False), MIXTRAL_EXPERTS),
)
