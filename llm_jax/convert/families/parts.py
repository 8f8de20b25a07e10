"""Choices that several families share, each read from and written to the keys of `config.json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm_jax.config import ModelConfig, UserError
from llm_jax.convert.families.family import Fields, Keys, Part

GATED = {"swiglu": "silu", "geglu": "gelu_pytorch_tanh"}
"""`model.activation` → its name in transformers, of an MLP with a gate."""
PLAIN = {"gelu": "gelu_new", "gelu_exact": "gelu", "relu": "relu", "relu2": "relu2"}
"""The same of an MLP without a gate."""
SYNONYMS = {"swish": "silu", "gelu_new": "gelu_pytorch_tanh"}
"""Names of transformers for the same function."""


def activation(
    names: Mapping[str, str] = GATED, key: str = "hidden_act", default: str = "silu"
) -> Part:
    """The activation of the MLP.

    Args:
      names: `model.activation` → its name in transformers.
    """
    ours = {SYNONYMS.get(theirs, theirs): name for name, theirs in names.items()}

    def read(given: Keys) -> Fields:
        act: str = given[key]
        if SYNONYMS.get(act, act) not in ours:
            same = [name for name, canon in SYNONYMS.items() if canon in ours]
            raise UserError(
                f"config.json has {key} {act!r}: supported are {', '.join(sorted({*ours, *same}))}."
            )
        return {"activation": ours[SYNONYMS.get(act, act)]}

    def write(config: ModelConfig) -> Keys:
        known = config.activation in names
        return {key: names[config.activation]} if known else {}

    return Part(read, write, {key: default})


def biases(default: bool = False, **keys: str) -> Part:
    """Which matrices have biases: name in `model.biases` → the key that says so."""

    def read(given: Keys) -> Fields:
        return {"biases": tuple(name for name, key in keys.items() if given[key])}

    def write(config: ModelConfig) -> Keys:
        # Where one key stands for two, it is set if one of them is.
        made: Keys = dict.fromkeys(keys.values(), False)
        for name, key in keys.items():
            made[key] |= name in config.biases
        return made

    return Part(read, write, dict.fromkeys(keys.values(), default))


def windows(
    otherwise: str = "L",
    default: int | None = None,
    *,
    by_layer: bool = True,
    switch: bool = False,
    pattern_key: str | None = None,
    nope: bool = False,
) -> Part:
    """Sliding windows of the layers that `layer_types` names.

    Args:
      otherwise: the pattern if it names none.
      default: the window if the file names none.
      by_layer: transformers reads `layer_types`; else every layer has the window.
      switch: `use_sliding_window` must be set, too.
      pattern_key: key of older files: after how many layers comes one without a window.
      nope: layers without a window have no positions, if others have a window.
    """
    defaults: Keys = {"sliding_window": default, "layer_types": None}
    if pattern_key:
        defaults[pattern_key] = None

    def read(given: Keys) -> Fields:
        if switch and not given["use_sliding_window"]:
            return {}
        every = given[pattern_key] if pattern_key else None
        fields = windows_of(given, "L" * (every - 1) + "G" if every else otherwise, by_layer)
        if nope and fields:
            fields["rope_pattern"] = fields["window_pattern"].translate(LETTERS)
        return fields

    def write(config: ModelConfig) -> Keys:
        made = write_windows(config)
        if not by_layer:
            del made["layer_types"]
        return made | ({"use_sliding_window": config.sliding_window is not None} if switch else {})

    return Part(read, write, defaults | ({"use_sliding_window": False} if switch else {}))


LETTERS = str.maketrans("LG", "RN")
"""Kind of window → kind of positions."""
LAYER_TYPES = {"sliding_attention": "L", "full_attention": "G"}


def windows_of(given: Keys, otherwise: str, by_layer: bool = True) -> Fields:
    """`sliding_window` and the shortest pattern of `layer_types`, or of `otherwise` without it."""
    kinds, layers = given["layer_types"], given["num_hidden_layers"]
    if given["sliding_window"] is None:
        return {}
    if kinds is None or not by_layer:
        letters = (otherwise * layers)[:layers]
    elif len(kinds) != layers or not set(kinds) <= set(LAYER_TYPES):
        raise UserError(
            f"config.json has layer_types {kinds!r}: it must name sliding_attention or "
            f"full_attention for each of {layers} layers."
        )
    else:
        letters = "".join(LAYER_TYPES[kind] for kind in kinds)
    if "L" not in letters:
        return {}
    return {"sliding_window": given["sliding_window"], "window_pattern": shortest(letters)}


def write_windows(config: ModelConfig) -> Keys:
    """`sliding_window`, and the kind of each layer."""
    kinds = {True: "full_attention", False: "sliding_attention"}
    return {
        "sliding_window": config.sliding_window,
        "layer_types": [kinds[window is None] for window in config.windows],
    }


def shortest(letters: str) -> str:
    """The shortest pattern whose repetition gives `letters`."""
    n = len(letters)
    return next(letters[:k] for k in range(1, n + 1) if (letters[:k] * n)[:n] == letters)


def same(**names: str) -> Part:
    """Fields whose value a key holds; an option that is off has no key: field → key."""

    def read(given: Keys) -> Fields:
        return {name: given[key] for name, key in names.items()}

    def write(config: ModelConfig) -> Keys:
        return {key: getattr(config, name) for name, key in names.items()}

    defaults: dict[str, Any] = dict.fromkeys(names.values())
    return Part(read, write, defaults)


def mlp_width(key: str, width: str) -> Part:
    """The width of the MLP; where the file has none at `key`, four times that of the model."""
    return Part(
        lambda given: {"d_ff": given[key] or 4 * given[width]},
        lambda config: {key: config.d_ff},
        {key: None},
    )
