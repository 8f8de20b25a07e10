"""Layers of LSTM and GRU cells, as `torch.nn.LSTM` and `torch.nn.GRU` compute them.

The products with the inputs of all positions are one matmul. Only those with the state are made
step by step, in a scan over the length.

Shape letters: B batch, T length, D width of the input, H of the state, which is D in a language
model, G gates (4 in an LSTM, 3 in a GRU).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
from flax import nnx

from llm_jax.attention.mask import Cache, Mask
from llm_jax.config import RecurrentConfig, RecurrentEncoderDecoderConfig
from llm_jax.facts.recurrent_counts import GATES
from llm_jax.models.common.layers import Product, dense, init_std, normal
from llm_jax.models.common.parameter import Spec
from llm_jax.parallel.mesh import constrain

UNROLL = 8
"""Steps of the scan that are compiled as one turn of the loop."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Steps:
    """What all layers of a forward pass share. A pipeline splits its arrays along the batch."""

    begins_BT: jax.Array
    """Whether a document begins here: the state before it is zero."""
    counts_BT: jax.Array
    """False at the padding after a row: the state stays as it is."""
    matmul: Product = field(default_factory=lambda: dense, metadata={"static": True})


class Recurrence(nnx.Module):
    """One layer of cells, from left to right."""

    def __init__(
        self,
        config: RecurrentConfig | RecurrentEncoderDecoderConfig,
        rngs: nnx.Rngs,
        width: int | None = None,
    ):
        """Args: width: H, if the state has another width than the input."""
        D, G = config.d_model, GATES[config.cell]
        H = width or D
        self.cell = config.cell
        std = init_std(config.layers)
        axes = ("embed", None, "mlp")
        self.inputs = normal(rngs, (D, G, H), axes, std)
        self.state = normal(rngs, (H, G, H), axes, std)
        bias = jnp.zeros((G, H), jnp.float32)
        if config.cell == "lstm":  # remember at first (Jozefowicz et al. 2015)
            bias = bias.at[1].set(1.0)
        spec = Spec((None, "mlp"), "vector")
        self.bias = nnx.Param(bias, spec=spec)
        if config.cell == "gru":
            self.new_bias = nnx.Param(jnp.zeros((H,), jnp.float32), spec=Spec(("mlp",), "vector"))

    def __call__(
        self, x_BTD: jax.Array, shared: Steps, mask: Mask, cache: Cache
    ) -> tuple[jax.Array, Cache, None]:
        """The states at all positions in the dtype of x_BTD, and the last one as the cache.

        Args:
          cache: the state before the first position: `h` and, of an LSTM, `c`; float32 (B, H).
            None: zeros, and no cache is returned.
        """
        B, dtype, H = x_BTD.shape[0], x_BTD.dtype, self.state.shape[0]
        gates_TBGH = jnp.moveaxis(self.gates(x_BTD, shared.matmul), 1, 0)
        state = cache if cache is not None else zero_state(self.cell, B, H)

        def step(state: Cache, now: tuple[jax.Array, ...]) -> tuple[Cache, jax.Array]:
            gates_BGH, begins_B, counts_B = now
            before = jax.tree.map(lambda leaf: jnp.where(begins_B[:, None], 0.0, leaf), state)
            after = self.advance(gates_BGH, before)
            kept = jax.tree.map(
                lambda new, old: jnp.where(counts_B[:, None], new, old), after, state
            )
            return kept, kept["h"].astype(dtype)

        steps = (gates_TBGH, shared.begins_BT.T, shared.counts_BT.T)
        state, h_TBH = jax.lax.scan(step, state, steps, unroll=UNROLL)
        out_BTH = constrain(jnp.moveaxis(h_TBH, 0, 1), "batch", "length", "act_embed")
        return out_BTH, None if cache is None else state, None

    def gates(self, x_BTD: jax.Array, matmul: Product) -> jax.Array:
        """What the inputs give to the gates, with the biases; (B, T, G, H) in its dtype."""
        D, G, H = self.inputs.shape
        w_Dg = self.inputs[...].reshape(D, G * H).astype(x_BTD.dtype)
        gates_BTGH = matmul(x_BTD, w_Dg).reshape(*x_BTD.shape[:2], G, H)
        return gates_BTGH + self.bias[...].astype(x_BTD.dtype)

    def advance(self, gates_BGH: jax.Array, before: Cache) -> Cache:
        """The state after one position.

        Args:
          gates_BGH: as `gates` returns them, of that position.
          before: the state before it.
        """
        dtype, (H, G, _) = gates_BGH.dtype, self.state.shape
        w_Hg = self.state[...].reshape(H, G * H).astype(dtype)
        from_state_BGH = (before["h"].astype(dtype) @ w_Hg).reshape(gates_BGH.shape)
        compute = self._lstm if self.cell == "lstm" else self._gru
        return compute(gates_BGH.astype(jnp.float32), from_state_BGH.astype(jnp.float32), before)

    def _lstm(self, x_BGH: jax.Array, h_BGH: jax.Array, before: Cache) -> Cache:
        """c' = σ(f)·c + σ(i)·tanh(g); h' = σ(o)·tanh(c')."""
        i, f, g, o = jnp.moveaxis(x_BGH + h_BGH, 1, 0)
        c = jax.nn.sigmoid(f) * before["c"] + jax.nn.sigmoid(i) * jnp.tanh(g)
        return {"h": jax.nn.sigmoid(o) * jnp.tanh(c), "c": c}

    def _gru(self, x_BGH: jax.Array, h_BGH: jax.Array, before: Cache) -> Cache:
        """n = tanh(xₙ + σ(r)·(hₙ + b)); h' = (1 - σ(z))·n + σ(z)·h."""
        r, z = (jax.nn.sigmoid(x_BGH[:, i] + h_BGH[:, i]) for i in (0, 1))
        n = jnp.tanh(x_BGH[:, 2] + r * (h_BGH[:, 2] + self.new_bias[...]))
        return {"h": (1 - z) * n + z * before["h"]}


def zero_state(cell: str, *shape: int) -> Cache:
    """The state before a text: `h` and, of an LSTM, `c`; float32 zeros."""
    names = ("h", "c") if cell == "lstm" else ("h",)
    return {name: jnp.zeros(shape, jnp.float32) for name in names}
