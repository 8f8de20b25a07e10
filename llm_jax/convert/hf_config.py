"""`ModelConfig` ↔ the `config.json` of transformers 5."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from llm_jax.config import ConfigError, Llama3Rope, ModelConfig, MoeConfig, UserError, YarnRope
from llm_jax.convert.families import Family, family_named, family_of
from llm_jax.convert.hf_keys import (
    ACTIVATIONS,
    COMMON_DEFAULTS,
    DEFAULTS,
    EXPERTS,
    FIXED,
    FROM_ACTIVATIONS,
    GPT2_ACTIVATIONS,
    GPT2_DEFAULTS,
    GPT2_RENAMED,
    HARMLESS,
    RENAMED,
)
from llm_jax.convert.hf_types import check_types

if TYPE_CHECKING:
    from llm_jax.data.tokenizers import Tokenizer


def to_hf(
    config: ModelConfig, tokenizer: Tokenizer, dtype: str, family: Family | None = None
) -> dict[str, Any]:
    """The config.json of `config`; raises `UserError` if no architecture has its options.

    Args:
      family: that it goes out as, which has its options; None: the first one.
    """
    family = family or family_of(config)
    renamed = GPT2_RENAMED if family.model_type == "gpt2" else RENAMED
    made = {
        "architectures": [family.architecture],
        "model_type": family.model_type,
        **{key: getattr(config, name) for name, key in renamed.items()},
        "bos_token_id": tokenizer.bos_id,
        "eos_token_id": tokenizer.eos_id,
        "pad_token_id": tokenizer.pad_id if tokenizer.pad_id >= 0 else None,
        "dtype": dtype,
    }
    if family.model_type == "gpt2":
        dropout = {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0}
        return {**made, **dropout, "activation_function": ACTIVATIONS[config.activation]}
    made["rope_parameters"] = _rope_to_hf(config)
    act = "hidden_activation" if family.model_type == "gemma2" else "hidden_act"
    made[act] = ACTIVATIONS[config.activation]
    if config.moe is not None:
        keys = EXPERTS[family.model_type]
        made |= {key: getattr(config.moe, name) for name, key in keys.items()}
    if family.model_type == "qwen3_moe":
        dense = [i for i, experts in enumerate(config.moe_layers) if not experts]
        made |= {"decoder_sparse_step": 1, "mlp_only_layers": dense}
    if family.model_type in ("llama", "qwen3", "qwen3_moe", "gemma", "gemma2"):
        made["attention_bias"] = config.qkv_bias
    if family.model_type == "llama":
        made["mlp_bias"] = config.mlp_bias
    if family.model_type == "gemma2":
        scale = config.attn_scale or config.head_dim**-0.5
        made["query_pre_attn_scalar"] = round(scale**-2)
        made["attn_logit_softcapping"] = config.attn_softcap
        made["final_logit_softcapping"] = config.logit_softcap
    return made | _windows_to_hf(config, family)


def _windows_to_hf(config: ModelConfig, family: Family) -> dict[str, Any]:
    if family.model_type in ("llama", "gemma"):
        return {}
    made: dict[str, Any] = {"sliding_window": config.sliding_window}
    if family.model_type.startswith("qwen"):
        made["use_sliding_window"] = config.sliding_window is not None
    if family.model_type not in ("mistral", "mixtral", "qwen3_moe"):
        kinds = {True: "full_attention", False: "sliding_attention"}
        made["layer_types"] = [kinds[window is None] for window in config.windows]
    return made


def _rope_to_hf(config: ModelConfig) -> dict[str, Any]:
    scaling = config.rope_scaling
    made: dict[str, Any] = {"rope_type": "default", "rope_theta": config.rope_theta}
    if scaling is None:
        return made
    made |= {
        "rope_type": scaling.kind,
        "factor": scaling.factor,
        "original_max_position_embeddings": scaling.original_max_seq_len,
    }
    if isinstance(scaling, Llama3Rope):
        ramp = ("low_freq_factor", "high_freq_factor")
    else:
        ramp = ("beta_fast", "beta_slow")
    return made | {name: getattr(scaling, name) for name in ramp}


def from_hf(raw: dict[str, Any], *, compared: bool = False) -> ModelConfig:
    """The architecture that a config.json describes.

    Args:
      compared: what the model computes will be compared with transformers, so that keys which this
        importer does not know (`unknown_keys`) may be there.

    Raises:
      UserError: the architecture or an option is not supported, or a key is missing.
    """
    check_types(raw)
    family = family_named(raw.get("model_type"))
    unknown = unknown_keys(raw)
    if unknown and not compared:
        key = unknown[0]
        raise UserError(
            f"config.json has {key} = {raw[key]!r}, which this importer does not know: a model "
            "imported without it could compute something else."
        )
    fields = _gpt2(raw) if family.model_type == "gpt2" else _decoder(raw, family)
    try:
        config = ModelConfig(**fields)
    except (ConfigError, TypeError) as error:
        raise UserError(
            f"config.json does not describe a model that can be built: {error}"
        ) from None
    if wrong := family.misfits(config):
        raise UserError(
            f"config.json: the values of {', '.join(wrong)} are not supported for "
            f"{family.model_type}."
        )
    return config


def _gpt2(raw: dict[str, Any]) -> dict[str, Any]:
    given = {**GPT2_DEFAULTS, **raw}
    fields = _renamed(given, GPT2_RENAMED)
    act = given["activation_function"]
    if act not in GPT2_ACTIVATIONS:
        raise UserError(
            f"config.json has activation_function {act!r}: supported are "
            f"{', '.join(GPT2_ACTIVATIONS)}."
        )
    fields["d_ff"] = fields["d_ff"] or 4 * fields["d_model"]
    fields["num_kv_heads"] = fields["num_heads"]
    fields["head_dim"] = fields["d_model"] // fields["num_heads"]
    fixed = {"norm": "layernorm", "positions": "learned", "biases": ("qkv", "out", "mlp")}
    return {**fields, **fixed, "activation": GPT2_ACTIVATIONS[act]}


def _decoder(raw: dict[str, Any], family: Family) -> dict[str, Any]:
    kind = family.model_type
    given = {**COMMON_DEFAULTS, **DEFAULTS[kind], **raw}
    if kind == "qwen3_moe" and "num_local_experts" in given:  # what transformers 5 calls it
        given["num_experts"] = given.pop("num_local_experts")
    fields = _renamed(given, RENAMED)
    fields["num_kv_heads"] = fields["num_kv_heads"] or fields["num_heads"]
    fields["head_dim"] = fields["head_dim"] or fields["d_model"] // fields["num_heads"]
    act = raw.get("hidden_activation") or given["hidden_act"]
    if kind.startswith("gemma") and act == "gelu":
        act = "gelu_pytorch_tanh"  # as transformers does for the first configs of Gemma
    if act not in FROM_ACTIVATIONS:
        raise UserError(
            f"config.json has hidden_act {act!r}: supported are {', '.join(FROM_ACTIVATIONS)}."
        )
    fields["activation"] = FROM_ACTIVATIONS[act]
    has_bias = {
        "qkv": kind == "qwen2" or given["attention_bias"],
        "out": kind != "qwen2" and given["attention_bias"],
        "mlp": given["mlp_bias"],
    }
    fields["biases"] = tuple(name for name, has in has_bias.items() if has)
    fields["qk_norm"] = kind in ("qwen3", "qwen3_moe")
    if kind in EXPERTS:
        fields["moe"] = _moe(given, kind, fields["num_layers"])
    if kind.startswith("gemma"):
        fields |= {"norm_plus_one": True, "scale_embeddings": True}
    if kind == "gemma2":
        fields |= {
            "post_norm": True,
            "attn_scale": _attn_scale(given["query_pre_attn_scalar"], fields["head_dim"]),
            "attn_softcap": given["attn_logit_softcapping"],
            "logit_softcap": given["final_logit_softcapping"],
        }
    return fields | _rope_from_hf(given) | _windows_from_hf(given, fields["num_layers"], family)


def _moe(given: dict[str, Any], kind: str, layers: int) -> MoeConfig:
    """The experts of Mixtral or Qwen3. Qwen3 lists the layers without them (`mlp_only_layers`)."""
    fields = _renamed(given, EXPERTS[kind])
    if kind == "mixtral":
        return MoeConfig(**fields)
    step, without = given["decoder_sparse_step"], given["mlp_only_layers"] or []
    wanted = tuple(i not in without and (i + 1) % step == 0 for i in range(layers))
    dense = wanted.index(True) if True in wanted else layers
    for first, every in ((dense, 1), (0, dense + 1)):
        places = range(-first, layers - first)
        if wanted == tuple(i >= 0 and i % every == every - 1 for i in places):
            return MoeConfig(**fields, dense_layers=first, every=every)
    raise UserError(
        f"config.json has mlp_only_layers = {without!r} and decoder_sparse_step = {step!r}: only "
        "the first layers, or all but every n-th layer, can be without experts."
    )


def _attn_scale(query_pre_attn_scalar: float, head_dim: int) -> float | None:
    return None if query_pre_attn_scalar == head_dim else query_pre_attn_scalar**-0.5


def _renamed(given: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    for key in names.values():
        if key not in given:
            raise UserError(f"config.json has no {key!r}: the model cannot be built without it.")
    return {name: given[key] for name, key in names.items()}


def unknown_keys(raw: dict[str, Any]) -> list[str]:
    """Keys of config.json that are set, and of which this importer does not know the meaning.

    Raises:
      UserError: a key is known, and only another value of it is supported.
    """
    kind = family_named(raw.get("model_type")).model_type
    if kind == "gpt2":
        known = {*GPT2_RENAMED.values(), "activation_function"}
    else:
        known = {*RENAMED.values(), *COMMON_DEFAULTS, *DEFAULTS[kind]}
    if kind == "qwen3_moe":
        known.add("num_local_experts")  # what transformers 5 calls num_experts
    if raw.get("quantization_config"):
        raise UserError(
            "config.json has quantization_config: quantised weights are not read; give the model "
            "in float32, bfloat16 or float16."
        )
    unknown = []
    for key, value in raw.items():
        if key in known or key in HARMLESS:
            continue
        if key in FIXED and value not in (None, FIXED[key]):
            raise UserError(f"config.json has {key} = {value!r}: only {FIXED[key]!r} is supported.")
        if key not in FIXED and value not in (None, False, [], {}, ""):
            unknown.append(key)
    return unknown


def _rope_from_hf(given: dict[str, Any]) -> dict[str, Any]:
    """Reads `rope_parameters` (transformers 5) and `rope_scaling` (earlier versions)."""
    rope = dict(given["rope_parameters"] or given["rope_scaling"] or {})
    theta = float(rope.pop("rope_theta", given["rope_theta"]))
    kind = rope.pop("rope_type", None) or rope.pop("type", None) or "default"
    rope.pop("type", None)
    if kind == "default":
        _refuse_rope(rope)
        return {"rope_theta": theta}
    original = rope.pop("original_max_position_embeddings", given["max_position_embeddings"])
    shared = {"factor": float(rope.pop("factor", 1.0)), "original_max_seq_len": original}
    scaling: Llama3Rope | YarnRope
    if kind == "llama3":
        low, high = rope.pop("low_freq_factor", 1.0), rope.pop("high_freq_factor", 4.0)
        scaling = Llama3Rope(**shared, low_freq_factor=low, high_freq_factor=high)
    elif kind == "yarn":
        fast, slow = rope.pop("beta_fast", None) or 32.0, rope.pop("beta_slow", None) or 1.0
        scaling = YarnRope(**shared, beta_fast=fast, beta_slow=slow)
        own = 0.1 * math.log(scaling.factor) + 1.0 if scaling.factor > 1 else 1.0
        if math.isclose(rope.get("attention_factor") or own, own, rel_tol=1e-6):
            rope.pop("attention_factor", None)
    else:
        raise UserError(f"config.json has rope_type {kind!r}: supported are default, llama3, yarn.")
    _refuse_rope(rope)
    return {"rope_theta": theta, "rope_scaling": scaling}


def _refuse_rope(rest: dict[str, Any]) -> None:
    for key, value in rest.items():
        default = {"partial_rotary_factor": 1.0, "truncate": True}.get(key)
        if value is not None and value != default:
            raise UserError(f"config.json has rope parameter {key} = {value!r}: not supported.")


def _windows_from_hf(given: dict[str, Any], layers: int, family: Family) -> dict[str, Any]:
    window = given["sliding_window"]
    if family.model_type.startswith("qwen") and not given["use_sliding_window"]:
        window = None
    if window is None or family.model_type in ("llama", "gemma"):
        return {}
    kinds = given["layer_types"]
    if kinds is None and family.model_type in ("qwen2", "qwen3"):
        full = given.get("max_window_layers", 28)
        letters = "".join("G" if i < full else "L" for i in range(layers))
    elif kinds is None or family.model_type in EXPERTS:
        letters = ("LG" * layers)[:layers] if family.model_type == "gemma2" else "L" * layers
    else:
        known = {"sliding_attention": "L", "full_attention": "G"}
        if len(kinds) != layers or not set(kinds) <= set(known):
            raise UserError(
                f"config.json has layer_types {kinds!r}: it must name sliding_attention or "
                f"full_attention for each of {layers} layers."
            )
        letters = "".join(known[kind] for kind in kinds)
    if "L" not in letters:
        return {}
    return {"sliding_window": window, "window_pattern": _shortest(letters)}


def _shortest(letters: str) -> str:
    """The shortest pattern whose repetition gives `letters`."""
    n = len(letters)
    return next(letters[:k] for k in range(1, n + 1) if (letters[:k] * n)[:n] == letters)
