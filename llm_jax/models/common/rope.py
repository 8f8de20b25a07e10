"""Rotary positions (Su et al. 2021): their frequencies, and the scalings for longer contexts.

R: rotated numbers of a head, `ModelConfig.rotary_dim`; its pairs are (i, i + R/2).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from llm_jax.config import (
    DynamicRope,
    LinearRope,
    Llama3Rope,
    LongRope,
    ModelConfig,
    YarnRope,
)

Rope = tuple[jax.Array, jax.Array]
"""sin and cos of the rotary positions, (B, T, R/2) float32 each."""


class Rotation(NamedTuple):
    """The rotary positions of a layer."""

    keys: Rope
    queries: Rope | None = None
    """None: that of the keys."""


def inverse_frequencies(config: ModelConfig) -> tuple[np.ndarray, float]:
    """Frequency of each rotated pair in radians per token, (R/2,) float32, and the factor on sin
    and cos, in texts that are not longer than the context of pretraining."""
    freqs, scaling = _unscaled(config, config.rope_theta), config.rope_scaling
    temperature = 1.0
    if isinstance(scaling, LinearRope):
        freqs = freqs / scaling.factor
    elif isinstance(scaling, Llama3Rope):
        freqs = _llama3(freqs, scaling)
    elif isinstance(scaling, YarnRope):
        freqs, temperature = _yarn(freqs, config.rope_theta, scaling), scaling.temperature
    elif isinstance(scaling, LongRope):
        freqs = freqs / np.asarray(scaling.short_factors or 1.0)
        temperature = scaling.attention_factor
    return freqs.astype(np.float32), temperature


def _unscaled(config: ModelConfig, theta: float) -> np.ndarray:
    R = config.rotary_dim
    return theta ** -(np.arange(0, R, 2, dtype=np.float64) / R)


def _llama3(freqs: np.ndarray, scaling: Llama3Rope) -> np.ndarray:
    """Divides the frequencies of long wavelengths by `factor`, with a linear ramp in between."""
    turns = scaling.original_max_seq_len * freqs / (2 * math.pi)
    span = scaling.high_freq_factor - scaling.low_freq_factor
    keep = np.clip((turns - scaling.low_freq_factor) / span, 0, 1)
    return freqs * (keep + (1 - keep) / scaling.factor)


def _yarn(freqs: np.ndarray, theta: float, scaling: YarnRope) -> np.ndarray:
    """NTK-by-parts (Peng et al. 2023, §3.2): the ramp is linear in the index of the pair."""
    pairs = len(freqs)

    def pair_that_turns(turns: float) -> float:
        ratio = scaling.original_max_seq_len / (turns * 2 * math.pi)
        return pairs * math.log(ratio) / math.log(theta)

    low, high = pair_that_turns(scaling.beta_fast), pair_that_turns(scaling.beta_slow)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, 2 * pairs - 1)
    keep = 1 - np.clip((np.arange(pairs) - low) / ((high - low) or 1e-3), 0, 1)
    return freqs * (keep + (1 - keep) / scaling.factor)


def _by_length(config: ModelConfig, length_B: jax.Array) -> jax.Array | None:
    """The frequencies of each row, (B, 1, R/2) float32; None if they do not depend on its length.

    Args:
      length_B: length of the longest document of each row, in tokens.
    """
    scaling, R = config.rope_scaling, config.rotary_dim
    length_B11 = length_B.astype(jnp.float32)[:, None, None]
    if isinstance(scaling, LongRope):
        long = _unscaled(config, config.rope_theta) / np.asarray(scaling.long_factors or 1.0)
        short, _ = inverse_frequencies(config)
        beyond = length_B11 > scaling.original_max_seq_len
        return jnp.where(beyond, long.astype(np.float32), short)
    if isinstance(scaling, DynamicRope) and R > 2:
        ratio = jnp.maximum(length_B11 / scaling.original_max_seq_len, 1.0)
        growth = (scaling.factor * ratio - (scaling.factor - 1)) ** (R / (R - 2))
        exponent_r = jnp.arange(0, R, 2, dtype=jnp.float32) / R
        plain_r = jnp.asarray(_unscaled(config, config.rope_theta), jnp.float32)
        return plain_r * growth**-exponent_r
    return None


def rotations(config: ModelConfig, positions_BT: jax.Array) -> dict[str, Rotation]:
    """The rotary positions by the names in `ModelConfig.rotations`."""
    freqs, factor = inverse_frequencies(config)
    own = _by_length(config, jnp.max(positions_BT, axis=1) + 1)
    keys = _table(positions_BT, freqs if own is None else own, factor)
    queries: Rope | None = None
    scaling = config.rope_scaling
    if isinstance(scaling, YarnRope) and scaling.query_beta:
        times = jnp.floor(positions_BT / scaling.original_max_seq_len)
        growth_BT1 = (1 + scaling.query_beta * jnp.log1p(times))[..., None]
        queries = keys[0] * growth_BT1, keys[1] * growth_BT1
    found = {"global": Rotation(keys, queries)}
    if config.rope_local_theta is not None:
        local = _unscaled(config, config.rope_local_theta).astype(np.float32)
        found["local"] = Rotation(_table(positions_BT, local, 1.0))
    # Without the barrier, XLA would compute them again in each layer that is written out.
    return jax.lax.optimization_barrier(found)


def rotates_late(config: ModelConfig) -> bool:
    """Whether a cache holds keys before their rotation."""
    return isinstance(config.rope_scaling, LongRope)


def _table(positions_BT: jax.Array, freqs: np.ndarray | jax.Array, factor: float) -> Rope:
    angles_BTr = positions_BT[..., None].astype(jnp.float32) * freqs
    return jnp.sin(angles_BTr) * factor, jnp.cos(angles_BTr) * factor


def apply_rope(x_BTNH: jax.Array, table: Rope) -> jax.Array:
    """Rotates the first R numbers of each head; same shape and dtype.

    Args:
      table: sin and cos of the angles.
    """
    sin, cos = (part[:, :, None, :].astype(x_BTNH.dtype) for part in table)
    rotated, rest = jnp.split(x_BTNH, (2 * sin.shape[-1],), axis=-1)
    a, b = jnp.split(rotated, 2, axis=-1)
    parts = [a * cos - b * sin, b * cos + a * sin]
    return jnp.concatenate(parts + [rest] * (rest.shape[-1] > 0), axis=-1)
