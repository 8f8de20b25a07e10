"""Activations of the MLP by name: of its gate, or of its only inner projection."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from llm_jax.models.common.parameter import Spec

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "swiglu": jax.nn.silu,
    "geglu": functools.partial(jax.nn.gelu, approximate=True),
    "gelu": functools.partial(jax.nn.gelu, approximate=True),
    "gelu_exact": functools.partial(jax.nn.gelu, approximate=False),
    "relu": jax.nn.relu,
    "relu2": lambda x: jnp.square(jax.nn.relu(x)),
}
"""`model.activation` → the function of the gate, or of the only projection without a gate."""
CLAMP, SLOPE = 7.0, 1.702
"""Constants of `clamped_swiglu` (gpt-oss, Agarwal et al. 2025; the slope is GELU's approximation by
Hendrycks & Gimpel 2016)."""


def gated(activation: str, gate: jax.Array, up: jax.Array) -> jax.Array:
    """Product of the two halves of a gated MLP, of one shape and dtype.

    Args:
      activation: `model.activation`.
    """
    if activation != "clamped_swiglu":
        return ACTIVATIONS[activation](gate) * up
    gate, up = jnp.minimum(gate, CLAMP), jnp.clip(up, -CLAMP, CLAMP)
    return gate * jax.nn.sigmoid(SLOPE * gate) * (up + 1)


class Xielu(nnx.Module):
    """xIELU (Huang & Schlag 2024, eq. 9): for x > 0 α₊x² + βx, else α₋(e^x - 1 - x) + βx."""

    BETA, LARGEST, START = 0.5, -1e-6, 0.8
    """Slope at 0; the largest x whose e^x - 1 is computed; α₊ and α₋ at the start."""

    def __init__(self) -> None:
        self.alpha_p = self._number(self.START)
        self.alpha_n = self._number(self.START - self.BETA)

    @staticmethod
    def _number(start: float) -> nnx.Param:
        """A parameter whose softplus is `start`."""
        value = jnp.full((1,), math.log(math.expm1(start)), jnp.float32)
        return nnx.Param(value, spec=Spec(("norm",), "vector"))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Same shape and dtype as `x`; computed in float32."""
        y = x.astype(jnp.float32)
        positive = jax.nn.softplus(self.alpha_p[...]) * y * y
        negative = jnp.expm1(jnp.minimum(y, self.LARGEST)) - y
        negative *= self.BETA + jax.nn.softplus(self.alpha_n[...])
        return (jnp.where(y > 0, positive, negative) + self.BETA * y).astype(x.dtype)
