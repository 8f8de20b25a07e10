"""The engine's cache: for each layer the keys and values of all slots, in parts of growing size.

A layer that sees everything keeps position p of a text in column p. Its columns are cut into parts,
so that a step reads only the parts that the longest text reaches: a part costs a condition, a slice
of a larger array would cost a copy. A layer with a window keeps its last `ring` positions, p in
column p mod ring. The axes are (slots, heads, columns, head size): then both products of attention
are plain batched matmuls. Latent attention keeps one row per position, as if of one head.

Programs get and return parts as they are stored: on a TPU as (slots, columns, heads, head size).
Its compiler writes new positions in that order, and would copy the whole cache into it at the start
of each call, and back at the end (docs/log.md).

What lies after a text's last position was written by an earlier text. No query reads it.

Shape letters as in `attention/`, and R: rows of this call, M: columns of a part.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from llm_jax.attention.mask import MASKED, Attend, Latent, Mask, Scores
from llm_jax.config import DynamicRope, LongRope, ModelConfig, RecurrentConfig
from llm_jax.models.common.attend import scores
from llm_jax.models.common.rope import apply_rope, rotates_late, rotations
from llm_jax.models.protocol import model_of
from llm_jax.models.recurrent.cells import zero_state
from llm_jax.parallel.mesh import constrain
from llm_jax.parallel.platform import platform

FIRST = 128
"""Columns of the first two parts; each part after them doubles the length."""
AXES = ("batch", "kv_heads", None, "head_dim")
"""Logical axes of a part."""
LANES = 128
"""Columns of a TPU's tiles."""


def columns_first() -> bool:
    """Whether parts are stored with columns before heads."""
    return platform() == "tpu"


def turned(part: jax.Array) -> jax.Array:
    """A part as it is stored; and a stored one with the axes `AXES`."""
    return jnp.swapaxes(part, 1, 2) if columns_first() else part


def stored_size(size: int) -> int:
    """Numbers that are stored of a head's key or value: a TPU's tiles have 128 columns, and where
    they are not full, the compiler would copy the cache as well. The rest are zeros."""
    return -(-size // LANES) * LANES if columns_first() else size


def stored_axes(shape: tuple[int, ...]) -> tuple[str | None, ...]:
    """Logical axes of a part of this shape as it is stored. The one head of latent attention is not
    split."""
    slots, heads, columns, size = AXES
    axes = (slots, columns, heads, size) if columns_first() else AXES
    return tuple(None if n == 1 else name for name, n in zip(axes, shape, strict=True))


class Columns(NamedTuple):
    """Where a layer keeps positions.

    Attributes:
      parts: columns of each part.
      ring: whether there is one part, whose columns are used again.
    """

    parts: tuple[int, ...]
    ring: bool = False


def columns(max_len: int, chunk: int, window: int | None) -> Columns:
    """The columns of a layer.

    Args:
      chunk: most positions that one call writes. A ring holds them beside the window.
    """
    if window is not None and window - 1 + chunk < max_len:
        return Columns((window - 1 + chunk,), ring=True)
    parts, have = [], 0
    while have < max_len:
        parts.append(min(max(FIRST, have), max_len - have))
        have += parts[-1]
    return Columns(tuple(parts))


def slack(config: ModelConfig | RecurrentConfig, max_len: int, chunk: int) -> int | None:
    """How many of its last tokens a text may lose so that its cache goes on from there; None: any
    number; -1: the cache is no other text's."""
    if isinstance(config, RecurrentConfig):
        return 0
    if isinstance(config.rope_scaling, DynamicRope | LongRope):
        return -1  # all that is kept depends on the length that the text had
    rings = [w for w in config.windows if columns(max_len, chunk, w).ring]
    return chunk if rings else None


def empty_cache(
    config: ModelConfig | RecurrentConfig, slots: int, max_len: int, chunk: int, dtype: str
) -> tuple[Any, ...]:
    """The cache of each layer: name → its parts, zeros; of a recurrent layer, its state."""
    if isinstance(config, RecurrentConfig):
        state = zero_state(config.cell, slots, config.d_model)
        return tuple(jax.tree.map(jnp.copy, state) for _ in range(config.num_layers))

    def layer(window: int | None) -> dict[str, tuple[jax.Array, ...]]:
        made = {}
        for name, (heads, size) in _kept_sizes(config).items():
            parts = columns(max_len, chunk, window).parts
            made[name] = tuple(
                turned(constrain(jnp.zeros((slots, heads, m, stored_size(size)), dtype), *AXES))
                for m in parts
            )
        return made

    return tuple(layer(layer_of.mask.window) for layer_of in model_of(config).layout(config).layers)


def _kept_sizes(config: ModelConfig) -> dict[str, tuple[int, int]]:
    if config.latent is not None:
        return {"latent": (1, config.latent.kv_rank + config.latent.rope_dim)}
    return dict.fromkeys(("k", "v"), (config.num_kv_heads, config.head_dim))


class Rows(NamedTuple):
    """What one call computes, row by row.

    Attributes:
      slot_R: slot of each row; None: row r is slot r.
      position_RT: int32 position of each token.
      write_RT: whether it is a token; what is not is not kept.
      last_R: position of the row's last token.
      length_R: tokens of the whole prompt, of which this may be a piece, or of the text so far.
      reach: columns that the longest row reaches.
    """

    slot_R: jax.Array | None
    position_RT: jax.Array
    write_RT: jax.Array
    last_R: jax.Array
    length_R: jax.Array
    reach: jax.Array


def slot_attend(config: Any, max_len: int, chunk: int, rows: Rows) -> Attend:
    """Attention of the tokens of `rows` over the text before them, which they extend."""
    rule = scores(config)

    def attend(
        q_RTNH: jax.Array,
        k_RTKH: jax.Array,
        v_RTKH: jax.Array,
        mask: Mask,
        cache: Any,
        sinks_N: jax.Array | None = None,
        latent: Latent | None = None,
    ) -> tuple[jax.Array, Any]:
        how = columns(max_len, chunk, mask.window)
        if latent is None:
            new = {"k": k_RTKH, "v": v_RTKH}
        else:
            new, q_RTNH = {"latent": latent.rows_BTR[:, :, None]}, latent.absorb(q_RTNH)
        H, q_RTNH = q_RTNH.shape[-1], _filled(q_RTNH)
        parts = {
            name: _written(tuple(map(turned, cache[name])), _filled(new[name]), how, rows)
            for name in new
        }
        keys, values = (parts[name] for name in (("k", "v") if latent is None else ("latent",) * 2))
        mean_RTNV = _mean(q_RTNH, H, keys, values, sinks_N, how, rule, mask, config, rows)
        if latent is not None:
            mean_RTNV = latent.expand(mean_RTNV[..., : latent.width])
        else:
            mean_RTNV = mean_RTNV[..., : v_RTKH.shape[-1]]
        return mean_RTNV, {name: tuple(map(turned, parts[name])) for name in parts}

    return attend


def _filled(x: jax.Array) -> jax.Array:
    """x (…, H), filled up with zeros to the size that is stored."""
    return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, stored_size(x.shape[-1]) - x.shape[-1])])


def _written(
    parts: tuple[jax.Array, ...], new_RTKH: jax.Array, how: Columns, rows: Rows
) -> tuple[jax.Array, ...]:
    """The parts with the new positions in place."""
    R = new_RTKH.shape[0]
    slot_R = jnp.arange(R) if rows.slot_R is None else rows.slot_R
    made, first = [], 0
    for part in parts:
        M = part.shape[2]
        at_RT = rows.position_RT % M if how.ring else rows.position_RT - first
        at_RT = jnp.where(rows.write_RT & (at_RT >= 0), at_RT, M)
        new = part.at[slot_R[:, None], :, at_RT].set(new_RTKH.astype(part.dtype), mode="drop")
        made.append(constrain(new, *AXES))
        first += M
    return tuple(made)


def _mean(
    q_RTNH: jax.Array,
    head_size: int,
    keys: tuple[jax.Array, ...],
    values: tuple[jax.Array, ...],
    sinks_N: jax.Array | None,
    how: Columns,
    rule: Scores,
    mask: Mask,
    config: Any,
    rows: Rows,
) -> jax.Array:
    """Mean of values by attention, (R, T, N, V) in the dtype of the queries: a softmax over parts
    (Milakov & Gimelshein 2018)."""
    if columns_first() and rows.slot_R is not None:
        # Inside of the conditions below the TPU compiler would copy all slots.
        keys, values = (
            tuple(jax.lax.optimization_barrier(part[rows.slot_R]) for part in parts)
            for parts in (keys, values)
        )
        rows = rows._replace(slot_R=None)
    R, T, N, stored = q_RTNH.shape
    K = keys[0].shape[1]
    q_RKgH = (
        q_RTNH.reshape(R, T, K, N // K, stored).transpose(0, 2, 3, 1, 4).reshape(R, K, -1, stored)
    )
    q_RKgH = q_RKgH.astype(keys[0].dtype)

    def one(k: jax.Array, v: jax.Array, first: int) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Largest score, sum of weights and weighted sum of values, of one part."""
        if rows.slot_R is not None:
            k, v = k[rows.slot_R], v[rows.slot_R]
        M = k.shape[2]
        if how.ring:
            at_RM = rows.last_R[:, None] - (rows.last_R[:, None] - jnp.arange(M)) % M
        else:
            at_RM = jnp.broadcast_to(first + jnp.arange(M), (R, M))
        if rotates_late(config) and mask.rotation is not None:
            k = _filled(_rotated(k[..., :head_size], at_RM, config, mask, rows))
        distance_RTM = rows.position_RT[:, :, None] - at_RM[:, None]
        s_RKgM = rule.of(
            jnp.einsum("RKgH,RKMH->RKgM", q_RKgH, k, preferred_element_type=jnp.float32)
        )
        s_RKGTM = s_RKgM.reshape(R, K, N // K, T, M)
        if rule.slopes is not None:
            s_RKGTM -= rule.fall(distance_RTM, K)
        seen_RTM = mask.sees(distance_RTM) & (at_RM >= 0)[:, None]
        s_RKgM = jnp.where(seen_RTM[:, None, None], s_RKGTM, MASKED).reshape(R, K, -1, M)
        most_RKg = jnp.max(s_RKgM, axis=-1)
        weight_RKgM = jnp.exp(s_RKgM - most_RKg[..., None])
        sum_RKgV = jnp.einsum(
            "RKgM,RKMV->RKgV", weight_RKgM.astype(v.dtype), v, preferred_element_type=jnp.float32
        )
        return most_RKg, jnp.sum(weight_RKgM, axis=-1), sum_RKgV

    found, first = [one(keys[0], values[0], 0)], keys[0].shape[2]
    nothing = jax.tree.map(jnp.zeros_like, found[0])
    nothing = (jnp.full_like(nothing[0], MASKED), *nothing[1:])
    for k, v in zip(keys[1:], values[1:], strict=True):
        reached = rows.reach > first

        def compute(k: jax.Array, v: jax.Array, first: int = first) -> Any:
            return one(k, v, first)

        found.append(jax.lax.cond(reached, compute, lambda k, v: nothing, k, v))
        first += k.shape[2]
    if sinks_N is not None:
        sink_KG1 = sinks_N.reshape(K, N // K, 1)
        sink_RKg = jnp.broadcast_to(sink_KG1, (R, K, N // K, T)).reshape(R, K, -1)
        found.append((sink_RKg, jnp.ones_like(sink_RKg), jnp.zeros_like(found[0][2])))
    top_RKg = found[0][0]
    for most, _, _ in found[1:]:
        top_RKg = jnp.maximum(top_RKg, most)
    total, mean = jnp.zeros_like(top_RKg), jnp.zeros_like(found[0][2])
    for most, sum_RKg, sum_RKgV in found:
        times_RKg = jnp.exp(most - top_RKg)
        total, mean = total + sum_RKg * times_RKg, mean + sum_RKgV * times_RKg[..., None]
    mean_RKgV = (mean / total[..., None]).astype(q_RTNH.dtype)
    V = mean_RKgV.shape[-1]
    return mean_RKgV.reshape(R, K, N // K, T, V).transpose(0, 3, 1, 2, 4).reshape(R, T, N, V)


def _rotated(
    k_RKMH: jax.Array, at_RM: jax.Array, config: ModelConfig, mask: Mask, rows: Rows
) -> jax.Array:
    """Keys, kept before their rotation, as a text of `length_R` tokens rotates them (LongRoPE)."""
    assert mask.rotation is not None
    last_R1 = rows.length_R[:, None] - 1
    # The column added says how long the text is: all frequencies depend on it.
    at_Rm = jnp.concatenate([jnp.clip(at_RM, 0, last_R1), last_R1], axis=1)
    sin, cos = rotations(config, at_Rm)[mask.rotation].keys
    table = sin[:, :-1], cos[:, :-1]
    return jnp.swapaxes(apply_rope(jnp.swapaxes(k_RKMH, 1, 2), table), 1, 2)
