"""Pytrees as nested dicts. In this form, checkpoints do not depend on the library of the tree."""

from __future__ import annotations

from typing import Any

import jax


def plain(tree: Any) -> dict[str, Any]:
    """Any pytree as nested dicts, with field names, keys or indices as keys."""
    nested: dict[str, Any] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        *parents, last = (key_of(entry) for entry in path)
        place = nested
        for name in parents:
            place = place.setdefault(name, {})
        place[last] = leaf
    return nested


def unplain(nested: dict[str, Any], template: Any) -> Any:
    """Inverse of `plain`: the leaves of `nested` in the structure of `template`.

    Raises:
      KeyError: `nested` lacks a leaf of `template`.
    """

    def pick(path: Any, _: Any) -> Any:
        place = nested
        for entry in path:
            place = place[key_of(entry)]
        return place

    return jax.tree_util.tree_map_with_path(pick, template)


def key_of(entry: Any) -> str:
    """The key of one entry of a tree path.

    Raises:
      TypeError: the entry has no field name, key or index.
    """
    for attribute in ("key", "name", "idx"):
        if hasattr(entry, attribute):
            return str(getattr(entry, attribute))
    raise TypeError(f"no name for tree entry {entry!r}")
