"""What a Hugging Face family is whose models are not decoders."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from llm_jax.config import Architecture, ConfigError, UserError, from_dict
from llm_jax.convert.families.family import Naming
from llm_jax.convert.hf_keys import HARMLESS
from llm_jax.convert.hf_types import check_types
from llm_jax.data.tokenizers import Tokenizer

Keys = dict[str, Any]
"""Keys of `config.json`."""
MASKED = "fill-mask"
"""Pipeline of the models that predict hidden tokens."""
DROPOUTS = (
    "attention_probs_dropout_prob",
    "cls_token_id",
    "dropout_rate",
    "hidden_dropout_prob",
    "initializer_factor",
    "mlp_dropout",
)
"""Keys that change nothing here: rates of dropout, which training leaves out, and an id."""


@dataclass(frozen=True, kw_only=True)
class Other:
    """One `model_type` of transformers."""

    model_type: str
    kind: str
    """`model.kind` of its models."""
    naming: Callable[[Any], Naming]
    """The names of the tensors of an architecture."""
    unused: tuple[str, ...]
    """Beginnings of names of tensors that are copies of others, or not parameters."""
    heads: tuple[str, ...] = ()
    """Beginnings of names of tensors that only some of its classes have."""
    renamed: Mapping[str, str] = field(default_factory=dict)
    """Ends of names in older files → what they are now."""
    tied: Mapping[str, str] = field(default_factory=dict)
    """Tensor that is a copy → the one that it must be the same as, where a folder has both."""
    generates: bool = False
    """Whether `generation_config.json` belongs to it."""
    fields: Mapping[str, str]
    """Field of the config → the key that holds its value."""
    fixed: Keys
    """Keys of which only this value is supported. It is what transformers takes if one is missing,
    and is written."""
    architecture: Callable[[Any], str]
    """Name of its class in transformers."""
    config: type[Any]
    """The class of its architectures."""
    read: Callable[[Keys], dict[str, Any]]
    """The fields that `fields` does not say; raises `UserError` for values that are not supported.
    """
    write: Callable[[Any, Tokenizer], Keys]
    """The keys that `fields` and `fixed` do not say."""
    read_keys: frozenset[str] = frozenset()
    """Keys that `read` looks at, and those that change nothing."""
    ours: Callable[[Any, Any, np.ndarray], np.ndarray]
    """ours(params, config, tokens_BT): all outputs of a forward pass, in one float32 array."""
    theirs: Callable[[Any, np.ndarray], np.ndarray]
    """theirs(model, tokens_BT): the same of a model of transformers, in the same order."""
    use: Callable[[str], list[str]]
    """use(prompt): lines of Python for the model card, after `tokenizer` and `model` exist."""
    noun: str
    """What such a model is, as a sentence begins."""
    pipeline: str
    """Tag of the task on the hub."""

    def unknown_keys(self, raw: Keys) -> list[str]:
        """Keys that are set, and of which this importer does not know the meaning."""
        known = {*self.fields.values(), *self.fixed, *self.read_keys, *HARMLESS, *DROPOUTS}
        return [
            key
            for key, value in raw.items()
            if key not in known and value not in (None, False, [], {}, "")
        ]

    def from_hf(self, raw: Keys, *, compared: bool = False) -> Architecture:
        """The architecture that a config.json describes.

        Args:
          compared: what the model computes will be compared with transformers, so that keys which
            this importer does not know may be there.

        Raises:
          UserError: a key is missing, or its value is not supported.
        """
        check_types(raw)
        if missing := [key for key in self.fields.values() if key not in raw]:
            raise UserError(f"config.json lacks {', '.join(missing)}: the model cannot be built.")
        for key, value in self.fixed.items():
            if raw.get(key, value) not in (None, value):
                raise UserError(
                    f"config.json has {key} = {raw[key]!r}: only {value!r} is supported."
                )
        if raw.get("quantization_config"):
            raise UserError(
                "config.json has quantization_config: quantised weights are not read; give the "
                "model in float32, bfloat16 or float16."
            )
        if (unknown := self.unknown_keys(raw)) and not compared:
            raise UserError(
                f"config.json has {unknown[0]} = {raw[unknown[0]]!r}, which this importer does not "
                "know: a model imported without it could compute something else."
            )
        fields = {name: raw[key] for name, key in self.fields.items()} | self.read(raw)
        try:
            made: Architecture = from_dict({"kind": self.kind} | fields, self.config, "model")
            return made
        except ConfigError as error:
            raise UserError(
                f"config.json does not describe a model that can be built: {error}"
            ) from None

    def to_hf(self, config: Any, tokenizer: Tokenizer, dtype: str) -> Keys:
        """The config.json of `config`."""
        return {
            "architectures": [self.architecture(config)],
            "model_type": self.model_type,
            **{key: getattr(config, name) for name, key in self.fields.items()},
            **self.fixed,
            **self.write(config, tokenizer),
            "dtype": dtype,
        }


def pad_id(tokenizer: Tokenizer) -> int | None:
    """The id of the padding; None if the tokenizer has none."""
    return tokenizer.pad_id if tokenizer.pad_id >= 0 else None
