"""Versions of tasks. Figures of two versions answer different questions, so they are not compared.

A version is what `metadata: {version: …}` of a task's file says. It is found without the task's
data, so that kept scores can be checked where the data are not at hand.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from typing import Any

FOLLOWS_PYTHON = "follows_python"
"""In a task's `metadata`: its questions are made from the Python that runs them, so that Python's
version is a part of the task's."""


def of_metadata(metadata: Any) -> str | None:
    """The version that a task's `metadata` says; None if it says none."""
    said = metadata if isinstance(metadata, dict) else {}
    if said.get("version") is None:
        return None
    python = f"+python{sys.version_info.major}.{sys.version_info.minor}"
    return f"{said['version']}{python if said.get(FOLLOWS_PYTHON) else ''}"


def together(versions: Mapping[str, str | None]) -> str | None:
    """The version of a group of tasks, by their names: the one that all have, or a digest."""
    if len({*versions.values()}) <= 1:
        return next(iter(versions.values()), None)
    text = "\n".join(f"{name} {version}" for name, version in sorted(versions.items()))
    return f"mixed-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def of_entry(name: str, entries: Mapping[str, Any]) -> str | None:
    """The version of a task, tag or group of lm-eval's index; None if its file says none.

    Args:
      entries: of the index, by name.
    """
    return together(_leaves(name, entries, frozenset()))


def _leaves(
    one: str | dict[str, Any], entries: Mapping[str, Any], above: frozenset[str]
) -> dict[str, str | None]:
    """The tasks of a task, tag or group, with their versions."""
    if isinstance(one, dict):
        return _of_settings(one, entries, above)
    entry = entries.get(one)
    if entry is None or one in above:
        return {one: None}
    if entry.cfg is None:
        parts: list[Any] = sorted(entry.tags)
    elif isinstance(entry.cfg.get("task"), list):
        parts = entry.cfg["task"]
    else:
        return {one: of_metadata(entry.cfg.get("metadata"))}
    own = of_metadata((entry.cfg or {}).get("metadata"))  # how a group puts its tasks together
    found: dict[str, str | None] = {one: own} if own else {}
    for part in parts:
        found |= _leaves(part, entries, above | {one})
    return found


def _of_settings(
    one: dict[str, Any], entries: Mapping[str, Any], above: frozenset[str]
) -> dict[str, str | None]:
    """Those of a member that a group writes with settings of its own."""
    parts = one.get("task", one.get("group"))
    found: dict[str, str | None] = {}
    for part in parts if isinstance(parts, list) else [str(parts)]:
        found |= _leaves(part, entries, above)
    said = of_metadata(one.get("metadata"))
    return dict.fromkeys(found, said) if said else found
