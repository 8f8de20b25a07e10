"""Pytrees as nested dicts, the form in which checkpoints outlive the libraries that made them."""

from __future__ import annotations

from typing import Any

import jax


def plain(tree: Any) -> dict[str, Any]:
    """Any pytree as nested dicts keyed by field name, key or index."""
    nested: dict[str, Any] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        *parents, last = (key_of(entry) for entry in path)
        place = nested
        for name in parents:
            place = place.setdefault(name, {})
        place[last] = leaf
    return nested


def unplain(nested: dict[str, Any], template: Any) -> Any:
    """Inverse of `plain`: the leaves of `nested` in the structure of `template`."""

    def pick(path: Any, _: Any) -> Any:
        place = nested
        for entry in path:
            place = place[key_of(entry)]
        return place

    return jax.tree_util.tree_map_with_path(pick, template)


def key_of(entry: Any) -> str:
    for attribute in ("key", "name", "idx"):
        if hasattr(entry, attribute):
            return str(getattr(entry, attribute))
    raise TypeError(f"no name for tree entry {entry!r}")
