"""Qwen1.5-MoE and Qwen2 with experts (Yang et al. 2024): shared experts behind a gate."""

from __future__ import annotations

import dataclasses

from llm_jax.config import ModelConfig
from llm_jax.convert.families import names
from llm_jax.convert.families.experts import SPARSE, sparse_layers
from llm_jax.convert.families.family import Family, Fields, Keys, Naming, Part
from llm_jax.convert.families.parts import activation, biases, windows_of
from llm_jax.convert.families.qwen import WINDOWS
from llm_jax.convert.families.rope import rope

ROUTED = sparse_layers(experts=60, top_k=4, d_ff=1408)
SHARED = "model.layers.{}.mlp.shared_expert"


def _read(given: Keys) -> Fields:
    moe, width = ROUTED.read(given)["moe"], given["shared_expert_intermediate_size"]
    return {"moe": dataclasses.replace(moe, shared_d_ff=width, shared_gate=True)}


def _write(config: ModelConfig) -> Keys:
    width = config.moe.shared_d_ff if config.moe else 0
    return ROUTED.write(config) | {"shared_expert_intermediate_size": width or 1}


def _read_windows(given: Keys) -> Fields:
    """Without `layer_types`, every second one of the first `max_window_layers` has the window."""
    if not given["use_sliding_window"]:
        return {}
    full, layers = given["max_window_layers"], given["num_hidden_layers"]
    letters = "".join("L" if i % 2 == 0 and i < full else "G" for i in range(layers))
    return windows_of(given, letters)


QWEN2_MOE = Family(
    model_type="qwen2_moe",
    architecture="Qwen2MoeForCausalLM",
    naming=Naming(
        names.LLAMA
        | SPARSE
        | {
            "blocks/moe/shared/gate": f"{SHARED}.gate_proj.weight",
            "blocks/moe/shared/up": f"{SHARED}.up_proj.weight",
            "blocks/moe/shared/down": f"{SHARED}.down_proj.weight",
            "blocks/moe/shared_gate": f"{SHARED}_gate.weight",
        }
    ),
    defaults={"max_position_embeddings": 32768},
    parts=(
        rope(),
        activation(),
        biases(default=True, qkv="qkv_bias"),
        dataclasses.replace(
            WINDOWS, read=_read_windows, defaults=WINDOWS.defaults | {"sliding_window": 4096}
        ),
        Part(_read, _write, ROUTED.defaults | {"shared_expert_intermediate_size": 5632}),
    ),
    aliases={"num_local_experts": "num_experts"},
)
