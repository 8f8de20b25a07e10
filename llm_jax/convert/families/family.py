"""What a Hugging Face family is: the keys of its `config.json`, and the names of its tensors.

A family is data: which key holds which field of `ModelConfig`, what a missing key means, and which
fields all its models share. What a table cannot say are `Part`s, each a pair of short functions.

Whether a family can express a model is not declared: the model is written as `config.json` and read
again, and the fields that come back changed are what the family lacks (`Family.misfits`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from llm_jax.config import ConfigError, LongRope, ModelConfig, MoeConfig, UserError

Keys = dict[str, Any]
"""Keys of `config.json`, with the defaults of transformers where the file has none."""
Fields = dict[str, Any]
"""Fields of `ModelConfig`."""
FIELDS = {
    "vocab_size": "vocab_size",
    "num_layers": "num_hidden_layers",
    "d_model": "hidden_size",
    "num_heads": "num_attention_heads",
    "num_kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "d_ff": "intermediate_size",
    "max_seq_len": "max_position_embeddings",
    "norm_eps": "rms_norm_eps",
    "tie_embeddings": "tie_word_embeddings",
}
"""Field of `ModelConfig` → the key of the same value, as Llama names it."""
FIELDS_BUT_HEAD_DIM = {name: key for name, key in FIELDS.items() if name != "head_dim"}
"""The same, of families whose heads always divide the width."""
DEFAULTS: Keys = {
    "num_key_value_heads": None,
    "head_dim": None,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
}
"""The defaults of transformers for keys of `FIELDS` that an old config.json lacks."""


@dataclass(frozen=True)
class Part:
    """One choice of the architecture, in both directions."""

    read: Callable[[Keys], Fields]
    """The fields that its keys describe; raises `UserError` for values that are not supported."""
    write: Callable[[ModelConfig], Keys]
    """The keys of a model. What they cannot say is left out."""
    defaults: Keys = field(default_factory=dict)
    """Every key that `read` looks at → what transformers takes if it is missing."""


@dataclass(frozen=True)
class Naming:
    """The names of a family's tensors, and how they are arranged on file."""

    names: Mapping[str, str]
    """Leaf of the parameter tree → name of its tensor. Leaves with the same name are joined along
    the output axis, in the order of this table."""
    linear: bool = True
    """Matrices are stored (out, in), as torch's Linear has them. False: (in, out), the Conv1D of
    GPT-2; but for the unembedding."""
    grouped: bool = False
    """Where query, key and value are one tensor, each key/value head stands between the queries
    that read it and its value. Otherwise all queries come first, then all keys."""
    pairs: Literal["halves", "interleaved", "swapped"] = "halves"
    """Which numbers of a head are rotated together (`tensors.head_order`)."""
    experts: Literal["each", "joined", "alternating"] = "each"
    """Each expert has tensors of its own; or one tensor holds those of all experts, with `joined`
    gate and up one after the other, (E, out, in), with `alternating` columns, (E, in, out)."""
    constants: Mapping[str, float] = field(default_factory=dict)
    """Tensors of each layer, with one number each that is not a parameter: name → value."""
    last_layer_only: tuple[str, ...] = ()
    """Leaves that only the last layer has on file. In the others they are zero."""
    rows: tuple[str, ...] = ()
    """Vectors that are stored as matrices of one row."""
    own_numbers: bool = False
    """The layers of each stack are numbered from 0 in the names. Otherwise all layers together are.
    """
    by_block: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """`model.parallel_block` → names that it changes."""
    older: Mapping[str, str] = field(default_factory=dict)
    """Another name that files use → the name."""
    optional_prefix: str = ""
    """Older files have the same names without it, but for the unembedding."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """One `model_type` of transformers."""

    model_type: str
    architecture: str
    naming: Naming
    fields: Mapping[str, str] = field(default_factory=lambda: FIELDS)
    """Field of `ModelConfig` → the key that holds its value."""
    always: Fields = field(default_factory=dict)
    """Fields of `ModelConfig` that all models of the family have, where they are not defaults."""
    defaults: Keys = field(default_factory=dict)
    """Key → what transformers takes if it is missing, where it differs from the parts' default."""
    fixed: Keys = field(default_factory=dict)
    """Keys of which only this value is supported. It is what transformers takes if one is missing,
    and is written."""
    parts: tuple[Part, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)
    """Other name of a key → the key."""
    heads_divide_width: bool = False
    """Whether transformers refuses a width that the number of heads does not divide."""
    quantised: tuple[str, ...] = ()
    """The `quant_method`s whose weights are read, and dequantised."""

    def given(self, raw: Keys) -> Keys:
        """`raw` with the defaults of the family."""
        defaults = dict(DEFAULTS)
        for part in self.parts:
            defaults |= part.defaults
        made = {**defaults, **self.defaults, **self.fixed}
        return made | {self.aliases.get(key, key): value for key, value in raw.items()}

    def known(self) -> set[str]:
        """The keys that are read."""
        return {*self.given({}), *self.fields.values(), *self.aliases}

    def read(self, raw: Keys) -> Fields:
        """The fields that a config.json describes.

        Raises:
          UserError: a key is missing, or its value is not supported.
        """
        given = self.given(raw)
        for key, value in self.fixed.items():
            if given[key] not in (None, value):
                raise UserError(
                    f"config.json has {key} = {given[key]!r}: only {value!r} is supported."
                )
        for key in self.fields.values():
            if key not in given:
                raise UserError(
                    f"config.json has no {key!r}: the model cannot be built without it."
                )
        fields = {name: given[key] for name, key in self.fields.items()}
        fields["num_kv_heads"] = fields.get("num_kv_heads") or fields["num_heads"]
        size = fields["d_model"] // fields["num_heads"]
        if "head_dim" not in self.fields and given.get("head_dim") not in (None, size):
            raise UserError(
                f"config.json has head_dim = {given['head_dim']!r}: only {size}, the width divided "
                f"by the heads, is supported for {self.model_type}."
            )
        fields["head_dim"] = fields.get("head_dim") or size
        fields |= self.always
        for part in self.parts:
            fields |= part.read(given)
        return fields

    def write(self, config: ModelConfig) -> Keys:
        """The keys of a model, as far as the family can express it."""
        made = {key: getattr(config, name) for name, key in self.fields.items()} | self.fixed
        for part in self.parts:
            made |= part.write(config)
        return made

    def misfits(self, config: ModelConfig) -> Fields:
        """The fields of `config` that the family cannot express."""
        try:
            fields = self.read(self.write(config))
        except ConfigError:  # the family's own rule of choosing experts cannot have these numbers
            return {"moe": config.moe}
        try:
            wanted, found = _meaning(config), _meaning(ModelConfig(**fields))
        except ConfigError:  # a model of this size cannot have these options
            wanted, found = _plain(config), {**_DEFAULT_FIELDS, **fields}
        wrong = {
            name: value
            for name, value in wanted.items()
            if not _same(value, found.get(name, value))
        }
        if self.heads_divide_width and config.d_model % config.num_heads:
            wrong["head_dim"] = config.head_dim
        return wrong


_DEFAULT_FIELDS = {item.name: item.default for item in dataclasses.fields(ModelConfig)}


def _plain(config: ModelConfig) -> Fields:
    """The fields that decide what a model computes."""
    names = (item.name for item in dataclasses.fields(config))
    return {name: getattr(config, name) for name in names if name != "attention_init"}


def _meaning(config: ModelConfig) -> Fields:
    """The same, with one value for all ways to write it."""
    fields = _plain(config)
    del fields["window_pattern"]
    fields["sliding_window"] = config.windows
    fields["rope_pattern"] = tuple(rotation is None for rotation in config.rotations)
    same = config.rope_local_theta == config.rope_theta and config.rope_scaling is None
    if same or "local" not in config.rotations:
        fields["rope_local_theta"] = None
    if config.positions != "rope":
        del fields["rope_theta"]
    if isinstance(config.rope_scaling, LongRope):
        ones = (1.0,) * (config.rotary_dim // 2)
        short, long = config.rope_scaling.short_factors, config.rope_scaling.long_factors
        fields["rope_scaling"] = dataclasses.replace(
            config.rope_scaling, short_factors=short or ones, long_factors=long or ones
        )
    fields["attn_scale"] = config.attn_scale or config.head_dim**-0.5
    if config.moe is not None:
        fields["moe"] = (config.moe_layers, _experts(config.moe))
        if all(config.moe_layers):
            del fields["d_ff"]
    return fields


def _experts(moe: MoeConfig) -> MoeConfig:
    """The experts without what matters in training only, and with one value for no groups."""
    unlike: Fields = {"balance_loss": 0.0, "z_loss": 0.0, "dense_layers": 0, "every": 1}
    unlike["balance_rate"] = 1.0 if moe.balance_rate else 0.0
    if moe.top_groups == moe.groups:
        unlike |= {"groups": 1, "top_groups": 1}
    return dataclasses.replace(moe, **unlike)


def _same(a: object, b: object) -> bool:
    """Whether two values are the same, but for the rounding of 1/sqrt(n)."""
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=1e-12)
    return a == b
