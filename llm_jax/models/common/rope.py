"""Rotary positions (Su et al. 2021), with the frequency scalings of Llama 3.1 and YaRN."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from llm_jax.config import Llama3Rope, ModelConfig, YarnRope


def inverse_frequencies(config: ModelConfig) -> tuple[np.ndarray, float]:
    """Frequency of each rotated pair in radians per token, (R/2,) float32 for the R rotated
    entries of a head, and the factor on sin and cos (1, except with YaRN)."""
    H = config.rotary_dim
    freqs = config.rope_theta ** -(np.arange(0, H, 2, dtype=np.float64) / H)
    scaling = config.rope_scaling
    if isinstance(scaling, Llama3Rope):
        return _llama3(freqs, scaling).astype(np.float32), 1.0
    if isinstance(scaling, YarnRope):
        temperature = 0.1 * math.log(scaling.factor) + 1.0 if scaling.factor > 1 else 1.0
        return _yarn(freqs, config.rope_theta, scaling).astype(np.float32), temperature
    return freqs.astype(np.float32), 1.0


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

    low = max(math.floor(pair_that_turns(scaling.beta_fast)), 0)
    high = min(math.ceil(pair_that_turns(scaling.beta_slow)), 2 * pairs - 1)
    keep = 1 - np.clip((np.arange(pairs) - low) / max(high - low, 1e-3), 0, 1)
    return freqs * (keep + (1 - keep) / scaling.factor)


def rope_table(config: ModelConfig, positions_BT: jax.Array) -> tuple[jax.Array, jax.Array]:
    """sin and cos of every angle, each (B, T, H/2) float32."""
    freqs, factor = inverse_frequencies(config)
    angles_BTh = positions_BT[..., None].astype(jnp.float32) * freqs
    # Without the barrier, XLA would compute them again in each layer that is written out.
    return jax.lax.optimization_barrier(
        (jnp.sin(angles_BTh) * factor, jnp.cos(angles_BTh) * factor)
    )


def apply_rope(x_BTNH: jax.Array, table: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Rotates pairs (i, i + H/2), the layout of Hugging Face checkpoints; same shape and dtype.

    Args:
      table: sin and cos of `rope_table`.
    """
    sin, cos = (part[:, :, None, :].astype(x_BTNH.dtype) for part in table)
    a, b = jnp.split(x_BTNH, 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)
