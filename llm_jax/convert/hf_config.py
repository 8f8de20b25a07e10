"""`ModelConfig` ↔ the `config.json` of transformers 5."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llm_jax.config import ConfigError, ModelConfig, UserError
from llm_jax.convert.families import Family, family_named, family_of, further
from llm_jax.convert.hf_keys import FIXED, HARMLESS
from llm_jax.convert.hf_types import check_family_types, check_types
from llm_jax.convert.others import other_named

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
    return {
        "architectures": [family.architecture],
        "model_type": family.model_type,
        **family.write(config),
        **({further.KEY: 0} if family.model_type in further.FAMILIES else {}),
        "bos_token_id": tokenizer.bos_id,
        "eos_token_id": tokenizer.eos_id,
        "pad_token_id": tokenizer.pad_id if tokenizer.pad_id >= 0 else None,
        "dtype": dtype,
    }


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
    check_family_types(raw, family)
    unknown = unknown_keys(raw)
    if unknown and not compared:
        key = unknown[0]
        raise UserError(
            f"config.json has {key} = {raw[key]!r}, which this importer does not know: a model "
            "imported without it could compute something else."
        )
    try:
        config = ModelConfig(**family.read(raw))
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


def quant_method(raw: dict[str, Any]) -> str | None:
    """The kind of quantised weights that a config.json names; None: they are not quantised."""
    found = raw.get("quantization_config")
    if not found:
        return None
    return str(found.get("quant_method")) if isinstance(found, dict) else repr(found)


def unknown_keys(raw: dict[str, Any]) -> list[str]:
    """Keys of config.json that are set, and of which this importer does not know the meaning.

    Raises:
      UserError: a key is known, and only another value of it is supported.
    """
    if other := other_named(raw.get("model_type")):
        return other.unknown_keys(raw)
    family = family_named(raw.get("model_type"))
    known = family.known()
    if raw.get("quantization_config"):
        method = quant_method(raw)
        if method not in family.quantised:
            raise UserError(
                f"config.json has quantization_config with quant_method {method!r}: such quantised "
                f"weights are not read for {family.model_type}; give the model in float32, "
                "bfloat16 or float16."
            )
        known |= {"quantization_config"}
    unknown = []
    for key, value in raw.items():
        if key in known or key in HARMLESS:
            continue
        if key in FIXED and value not in (None, FIXED[key]):
            raise UserError(f"config.json has {key} = {value!r}: only {FIXED[key]!r} is supported.")
        if key not in FIXED and value not in (None, False, [], {}, ""):
            unknown.append(key)
    return unknown
