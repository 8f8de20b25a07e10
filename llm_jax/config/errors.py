"""Errors that a user can fix, and the sentences that explain them."""

from __future__ import annotations

import difflib
import math
import typing
from typing import Any

from llm_jax.config.exits import CONFIG, USAGE


class UserError(Exception):
    """A user's mistake: one sentence that names the field, the value and the way out."""

    exit_code = USAGE
    """Exit code of the command line."""
    abandons_threads = False
    """Whether it leaves threads that never end, so that the process must exit at once."""


class ConfigError(UserError):
    """A configuration that can never run. Supervisors must not retry it (exit code 78)."""

    exit_code = CONFIG


def require(condition: bool, sentence: str) -> None:
    """Raises `ConfigError(sentence)` unless `condition` holds."""
    if not condition:
        raise ConfigError(sentence)


FEW = 8
"""If no name is near, all names are shown if there are at most this many."""
NEAR = 0.6
"""Least similarity of a name that is suggested."""
CLOSE_BEHIND = 0.05
"""A name is suggested too if its similarity is at most this much below the nearest name's."""


def nearest(word: str, known: typing.Iterable[str]) -> str:
    """The end of an error sentence: the nearest known names, at most three.

    If no name is near, it lists all of a few names, or the three nearest of many.
    """
    ranked = sorted((-_likeness(word, name), name) for name in known)
    if not ranked:
        return "there is none."
    best = -ranked[0][0]
    if best >= NEAR:
        near = [repr(name) for gap, name in ranked[:3] if -gap >= max(NEAR, best - CLOSE_BEHIND)]
        several = f"{', '.join(near[:-1])} or " if near[1:] else ""
        return f"did you mean {several}{near[-1]}?"
    if len(ranked) <= FEW:
        return f"known: {', '.join(sorted(name for _, name in ranked))}."
    return f"the nearest are {', '.join(name for _, name in ranked[:3])}."


def _likeness(word: str, name: str) -> float:
    """Similarity of `word` and `name`, from 0 to 1. Flags are compared by section and by field.

    If the word is the initials (`lr` for `learning-rate`) or the beginning of a field, they are
    near.
    """
    (section, field), (known_section, known_field) = _parts(word), _parts(name)
    like = _ratio(field, known_field)
    if len(field) > 1 and _initials(known_field) == field:
        like = 0.98
    elif len(field) > 2 and known_field.startswith(field):
        like = max(like, 0.85)
    if not section:  # a user may leave the section out
        return like if not known_section else 0.95 * like
    same = _ratio(section, known_section)
    return 0.9 * like * (0.65 + 0.35 * same) + 0.1 * same


def _parts(word: str) -> tuple[str, str]:
    """(section, field) of a flag `--section.field=value`; ("", word) for any other word."""
    if not word.startswith("--"):
        return "", word.lower().replace("_", "-")
    section, _, field = word[2:].split("=")[0].lower().replace("_", "-").rpartition(".")
    return section, field


def _ratio(word: str, name: str) -> float:
    return difflib.SequenceMatcher(None, word, name).ratio()


def _initials(name: str) -> str:
    """Initials of the words of `name`; empty if it is one word."""
    words = name.split("-")
    return "".join(word[0] for word in words if word) if len(words) > 1 else ""


MOST = 2**31 - 1
"""Largest size and count: devices count in 32 bits."""
MOST_SEED = 2**63 - 1
"""Largest seed that NumPy and JAX take."""


def positive(owner: str, obj: Any, *names: str, most: float = MOST) -> None:
    """Raises `ConfigError` unless the fields `names` of `obj` are finite and above 0, and whole
    numbers at most `most`."""
    for name in names:
        value = getattr(obj, name)
        require(value > 0, f"{owner}.{name} is {value}: it must be above 0.")
        require(value < math.inf, f"{owner}.{name} is {value}: it must be a finite number.")
        if isinstance(value, int):
            require(value <= most, f"{owner}.{name} is {value}: it must be at most {most:,}.")


def check_seed(owner: str, value: int) -> None:
    """Raises `ConfigError` unless `value` is a seed."""
    require(
        0 <= value <= MOST_SEED,
        f"{owner}.seed is {value}: it must be a whole number from 0 to {MOST_SEED:,}.",
    )
