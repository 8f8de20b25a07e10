"""Finds weights that are not finite numbers before anything is computed from them."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from llm_jax.config import UserError


def require_finite(params: Any, where: str, way_out: str) -> None:
    """Raises `UserError` if a leaf of `params` holds NaN or an infinity, and names it."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    broken = [path for path, leaf in leaves if not all(map(_finite, _parts(leaf)))]
    if broken:
        name = "/".join(str(entry.key) for entry in broken[0])
        others = f" and {len(broken) - 1} more" if len(broken) > 1 else ""
        raise UserError(
            f"{where} has weights that are not finite numbers ({name}{others}): {way_out}."
        )


def _parts(leaf: Any) -> list[Any]:
    """What this process holds of an array."""
    shards = getattr(leaf, "addressable_shards", None)
    return [leaf] if shards is None else [shard.data for shard in shards]


def _finite(part: Any) -> bool:
    return bool(np.isfinite(np.asarray(part)).all())
