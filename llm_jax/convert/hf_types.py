"""Checks the type of each value in a `config.json`: "32" layers are not 32 layers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, get_type_hints

from llm_jax.config import ModelConfig, UserError
from llm_jax.config.model_checks import MOST_LAYERS

if TYPE_CHECKING:
    from llm_jax.convert.families import Family

LARGEST = 2**31 - 1
ROPE = ("rope_parameters", "rope_scaling")
LAYERS = ("num_hidden_layers", "n_layer", "n_layers")
WHOLE = (
    "vocab_size", "hidden_size", "num_attention_heads", "num_key_value_heads", "head_dim",
    "intermediate_size", "max_position_embeddings", "sliding_window", "num_local_experts",
    "num_experts", "num_experts_per_tok", "moe_intermediate_size", "decoder_sparse_step", "n_embd",
    "sliding_window_pattern", "n_head", "n_inner", "n_positions", "max_window_layers",
    "original_max_position_embeddings", "num_nextn_predict_layers", *LAYERS,
)  # fmt: skip
REAL = (
    "rms_norm_eps", "layer_norm_epsilon", "rope_theta", "final_logit_softcapping",
    "attn_logit_softcapping", "query_pre_attn_scalar", "router_aux_loss_coef", "factor",
    "low_freq_factor", "high_freq_factor", "beta_fast", "beta_slow", "attention_factor", "mscale",
    "mscale_all_dim", "partial_rotary_factor", "alpha",
)  # fmt: skip
TYPES: dict[str, tuple[type, str]] = {
    **dict.fromkeys(("tie_word_embeddings", "attention_bias", "mlp_bias", "use_sliding_window",
                     "norm_topk_prob"), (bool, "true or false")),
    **dict.fromkeys(("model_type", "hidden_act", "hidden_activation", "activation_function",
                     "feed_forward_proj", "rope_type", "type"), (str, "a string")),
    **dict.fromkeys(("layer_types", "mlp_only_layers", "no_rope_layers", "architectures"),
                    (list, "a list")),
    **dict.fromkeys((*ROPE, "full_attention", "sliding_attention", "attn_config"),
                    (dict, "an object")),
}  # fmt: skip
MAY_BE_ZERO = (
    "max_window_layers",
    "sliding_window",
    "first_k_dense_replace",
    "num_nextn_predict_layers",
)
NULLABLE = (
    "q_lora_rank", "n_group", "topk_group",
    "num_key_value_heads", "head_dim", "sliding_window", "n_inner", "final_logit_softcapping",
    "attn_logit_softcapping", "layer_types", "mlp_only_layers", "rope_parameters", "rope_scaling",
    "hidden_activation", "max_window_layers", "rope_type", "type", "beta_fast", "beta_slow",
    "attention_factor", "original_max_position_embeddings", "sliding_window_pattern",
    "no_rope_layers", "factor", "rope_theta", "full_attention", "sliding_attention", "attn_config",
    "mscale", "mscale_all_dim", "llama_4_scaling_beta", "partial_rotary_factor", "architectures",
    "num_nextn_predict_layers",
)  # fmt: skip
ELEMENTS: dict[str, tuple[type, str]] = {
    "layer_types": (str, "a list of strings"),
    "mlp_only_layers": (int, "a list of whole numbers"),
    "no_rope_layers": (int, "a list of whole numbers"),
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
        if TYPES.get(key, (None,))[0] is dict and value:
            check_types(value)


def check_family_types(raw: dict[str, Any], family: Family) -> None:
    """Checks the keys that only some families have: by the field that they hold, or their default.

    Raises:
      UserError: as `check_types` does.
    """
    fields, given = get_type_hints(ModelConfig), family.given({})
    kinds = {key: type(value) for key, value in given.items()}
    kinds |= {key: fields[name] for name, key in family.fields.items()}
    for key, value in raw.items():
        if key in WHOLE or (value is None and (key in NULLABLE or given.get(key, 0) is None)):
            continue
        number = isinstance(value, int | float) and not isinstance(value, bool)
        least = 0 if key in MAY_BE_ZERO else 1
        right, wanted = {
            int: (type(value) is int and least <= value <= LARGEST, f"a whole number from {least}"),
            float: (number and math.isfinite(value), "a finite number"),
            bool: (isinstance(value, bool), "true or false"),
            str: (isinstance(value, str), "a string"),
        }.get(kinds.get(key, object), (True, ""))
        if not right:
            raise UserError(
                f"config.json does not describe a model that can be built: {key} is {value!r}, but "
                f"must be {wanted}."
            )


def _wanted(key: str, value: Any) -> str | None:
    """What `value` must be; None if it is right, or if `key` is not known."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if key in WHOLE:
        least = 0 if key in MAY_BE_ZERO else 1
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
