"""Which keys a query sees, and how its scores are computed: static data of every implementation.

A query never sees another document. That is data, too, but it differs from batch to batch:
`segments`, an int32 number of the document for each position. Equal numbers see each other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

MASKED = -(2.0**30)  # finite, so that a fully masked row gives a mean and not NaN


class Mask(NamedTuple):
    """Which keys of its own document a query sees."""

    causal: bool = True
    """Only keys at its own position and before. False: on both sides (encoders)."""
    window: int | None = None
    """Only keys less than this many positions away, itself included; None: no limit."""
    rotation: Literal["global", "local"] | None = "global"
    """Rotary table of the layer (`ModelConfig.rotations`), where the model has rotary positions."""

    def sees(self, distance: jax.Array) -> jax.Array:
        """Whether a query sees a key at `distance` = query's position − key's position; bool."""
        seen = distance >= 0 if self.causal else jnp.ones(distance.shape, bool)
        if self.window is not None:
            seen &= distance < self.window
            if not self.causal:
                seen &= distance > -self.window
        return seen

    def keys(self, rows: slice, T: int) -> slice:
        """The rows of the keys, of T, that at least one of the query rows `rows` can see."""
        first = 0 if self.window is None else max(0, rows.start - self.window + 1)
        if self.causal:
            return slice(first, rows.stop)
        return slice(first, T if self.window is None else min(T, rows.stop + self.window - 1))


class Scores(NamedTuple):
    """How the product of a query and a key becomes a score."""

    head_dim: int
    scale: float
    """Factor on q·k."""
    softcap: float | None = None
    """Scores become softcap·tanh(scores/softcap) (Gemma 2, §2); None: no soft-cap."""
    slopes: tuple[float, ...] | None = None
    """How fast the scores of each query head fall with the distance (`alibi_slopes`); None: they do
    not."""

    def fall(self, distance: jax.Array, kv_heads: int) -> jax.Array:
        """What is taken from scores at `distance` (…, T, S), for each head: (…, K, G, T, S)."""
        slopes_KG11 = jnp.asarray(self.slopes, jnp.float32).reshape(kv_heads, -1, 1, 1)
        return slopes_KG11 * jnp.abs(distance)[..., None, None, :, :]

    def of(self, products: jax.Array) -> jax.Array:
        """The scores for these q·k."""
        scores = products * self.scale
        return scores if self.softcap is None else self.softcap * jnp.tanh(scores / self.softcap)

    def slope(self, scores: jax.Array) -> jax.Array:
        """d(score)/d(q·k), float32, where the scores are `scores`."""
        slope = jnp.asarray(self.scale, jnp.float32)
        return slope if self.softcap is None else slope * (1 - (scores / self.softcap) ** 2)


def alibi_slopes(heads: int) -> tuple[float, ...]:
    """The slope of each head (Press et al. 2022, §3): 2^(-8/n), 2^(-16/n) … for n heads, a power of
    two. Of another number, the rest are every second slope of twice as many heads."""
    n = 1 << (heads.bit_length() - 1)
    own = [2 ** (-8 * (i + 1) / n) for i in range(n)]
    between = [2 ** (-4 * (2 * i + 1) / n) for i in range(heads - n)]
    return tuple(own + between)


Cache = Any
"""What an `Attend` keeps between calls for one layer; None in training."""
Attend = Callable[[jax.Array, jax.Array, jax.Array, Mask, Cache], tuple[jax.Array, Cache]]
"""attend(q_BTNH, k_BSKH, v_BSKH, mask, cache) -> (out_BTNH, cache)."""


def visible(mask: Mask, segments_BT: jax.Array, queries: slice, keys: slice) -> jax.Array:
    """Which keys each query sees: bool, (B, T, S), for the rows `queries` and the rows `keys`.

    Args:
      segments_BT: int32, the document of each row of the packed sequences.
    """
    t = jnp.arange(queries.start, queries.stop)[:, None]
    s = jnp.arange(keys.start, keys.stop)[None, :]
    same_document = segments_BT[:, queries, None] == segments_BT[:, None, keys]
    return mask.sees(t - s) & same_document
