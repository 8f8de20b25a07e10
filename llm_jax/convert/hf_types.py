"""Checks the type of each value in a `config.json`: "32" layers are not 32 layers."""

from __future__ import annotations

import math
from typing import Any

from llm_jax.config import UserError
from llm_jax.config.model_checks import MOST_LAYERS

LARGEST = 2**31 - 1
LAYERS = ("num_hidden_layers", "n_layer")
WHOLE = (
    "vocab_size", "hidden_size", "num_attention_heads", "num_key_value_heads", "head_dim",
    "intermediate_size", "max_position_embeddings", "sliding_window", "num_local_experts",
    "num_experts", "num_experts_per_tok", "moe_intermediate_size", "decoder_sparse_step", "n_embd",
    "n_head", "n_inner", "n_positions", "max_window_layers", "original_max_position_embeddings",
    *LAYERS,
)  # fmt: skip
REAL = (
    "rms_norm_eps", "layer_norm_epsilon", "rope_theta", "final_logit_softcapping",
    "attn_logit_softcapping", "query_pre_attn_scalar", "router_aux_loss_coef", "factor",
    "low_freq_factor", "high_freq_factor", "beta_fast", "beta_slow", "attention_factor",
)  # fmt: skip
TYPES: dict[str, tuple[type, str]] = {
    **dict.fromkeys(("tie_word_embeddings", "attention_bias", "mlp_bias", "use_sliding_window",
                     "norm_topk_prob"), (bool, "true or false")),
    **dict.fromkeys(("model_type", "hidden_act", "hidden_activation", "activation_function",
                     "rope_type", "type"), (str, "a string")),
    **dict.fromkeys(("layer_types", "mlp_only_layers"), (list, "a list")),
    **dict.fromkeys(("rope_parameters", "rope_scaling"), (dict, "an object")),
}  # fmt: skip
NULLABLE = (
    "num_key_value_heads", "head_dim", "sliding_window", "n_inner", "final_logit_softcapping",
    "attn_logit_softcapping", "layer_types", "mlp_only_layers", "rope_parameters", "rope_scaling",
    "hidden_activation", "max_window_layers", "rope_type", "type", "beta_fast", "beta_slow",
    "attention_factor",
)  # fmt: skip
ELEMENTS: dict[str, tuple[type, str]] = {
    "layer_types": (str, "a list of strings"),
    "mlp_only_layers": (int, "a list of whole numbers"),
}


def check_types(raw: dict[str, Any]) -> None:
    """Checks every known key, including those of the rotary positions.

    Raises:
      UserError: a value has another type, or is a number that no model can have.
    """
    for key, value in raw.items():
        wanted = None if value is None and key in NULLABLE else _wanted(key, value)
        if wanted:
            raise UserError(
                f"config.json does not describe a model that can be built: {key} is {value!r}, but "
                f"must be {wanted}."
            )
        if key in ("rope_parameters", "rope_scaling") and value:
            check_types(value)


def _wanted(key: str, value: Any) -> str | None:
    """What `value` must be; None if it is right, or if `key` is not known."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if key in WHOLE:
        least = 0 if key == "max_window_layers" else 1
        most = MOST_LAYERS if key in LAYERS else LARGEST
        right = number and isinstance(value, int) and least <= value <= most
        return None if right else f"a whole number from {least} to {most:,}"
    if key in REAL:
        least_real = 0 if key == "router_aux_loss_coef" else 5e-324
        right = number and least_real <= value and math.isfinite(value)
        return None if right else "a finite number above 0"
    kind, name = TYPES.get(key, (object, ""))
    if not isinstance(value, kind):
        return name
    if isinstance(value, list) and key in ELEMENTS:
        kind, name = ELEMENTS[key]
        return None if all(isinstance(one, kind) for one in value) else name
    return None
