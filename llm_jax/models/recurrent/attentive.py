"""The layers of a recurrent encoder-decoder: reading from both sides, and attention.

Shape letters: B batch, S positions of the source, T of the target, D width, G gates.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx

from llm_jax.attention.mask import MASKED, Cache, Mask
from llm_jax.config import RecurrentEncoderDecoderConfig
from llm_jax.facts.recurrent_counts import GATES
from llm_jax.models.common.layers import init_std, normal
from llm_jax.models.recurrent.cells import Recurrence, Steps
from llm_jax.parallel.mesh import constrain


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class BothSteps:
    """`Steps` of each direction; `back` is in the order from right to left."""

    ahead: Steps
    back: Steps


class BothWays(nnx.Module):
    """One layer of the encoder: half of its width reads from left to right, half from the right."""

    def __init__(self, config: RecurrentEncoderDecoderConfig, rngs: nnx.Rngs):
        half = config.d_model // 2
        self.ahead = Recurrence(config, rngs, half)
        self.back = Recurrence(config, rngs, half)

    def __call__(
        self, x_BSD: jax.Array, shared: BothSteps, mask: Mask, cache: Cache
    ) -> tuple[jax.Array, Cache, None]:
        """The states of both directions side by side, (B, S, D) in the dtype of x_BSD; the cache
        is passed through."""
        ahead_BSH, _, _ = self.ahead(x_BSD, shared.ahead, mask, None)
        back_BSH, _, _ = self.back(x_BSD[:, ::-1], shared.back, mask, None)
        both_BSD = jnp.concatenate([ahead_BSH, back_BSH[:, ::-1]], axis=-1)
        return constrain(both_BSD, "batch", "length", "act_embed"), cache, None


class SourceAttention(nnx.Module):
    """Attention of the decoder's state to the source, and its way back into the decoder.

    The output, tanh(A·h + B·c) of the state h and the mean c of the source by the scores, goes to
    the output matrix and to the next step's gates (input feeding, Luong et al. 2015, §3.3).
    """

    def __init__(self, config: RecurrentEncoderDecoderConfig, rngs: nnx.Rngs):
        D, std = config.d_model, init_std(config.layers)
        self.additive = config.attention == "additive"
        axes = ("embed", "mlp")
        self.keys = normal(rngs, (D, D), axes, std)
        if self.additive:
            self.query = normal(rngs, (D, D), axes, std)
            self.score = normal(rngs, (D,), ("mlp",), std, "vector")
        self.of_state = normal(rngs, (D, D), axes, std)
        self.of_source = normal(rngs, (D, D), axes, std)
        self.feed = normal(rngs, (D, GATES[config.cell], D), ("embed", None, "mlp"), std)

    def read(self, memory_BSD: jax.Array) -> jax.Array:
        """The keys of the source, (B, S, D)."""
        return memory_BSD @ self.keys[...].astype(memory_BSD.dtype)

    def first(self, memory_BSD: jax.Array, seen_BTS: jax.Array) -> jax.Array:
        """What the first step is fed with, (B, T, D): the output for a state of zeros and the plain
        mean of the source that each position sees."""
        shares_BTS = jax.nn.softmax(jnp.where(seen_BTS, 0.0, MASKED), axis=-1)
        mean_BTD = shares_BTS.astype(memory_BSD.dtype) @ memory_BSD
        return jnp.tanh(mean_BTD @ self.of_source[...].astype(memory_BSD.dtype))

    def fed(self, out_BD: jax.Array) -> jax.Array:
        """What the output of the step before gives to the first layer's gates, (B, G, D)."""
        D, G, _ = self.feed.shape
        w_Dg = self.feed[...].reshape(D, G * D).astype(out_BD.dtype)
        return (out_BD @ w_Dg).reshape(-1, G, D)

    def __call__(
        self, h_BD: jax.Array, keys_BSD: jax.Array, memory_BSD: jax.Array, seen_BS: jax.Array
    ) -> jax.Array:
        """The output, (B, D) in the dtype of h_BD; softmax in float32."""
        dtype = h_BD.dtype
        if self.additive:
            asked_B1D = (h_BD @ self.query[...].astype(dtype))[:, None]
            scores_BS = jnp.tanh(asked_B1D + keys_BSD) @ self.score[...].astype(dtype)
        else:
            scores_BS = jnp.einsum("BD,BSD->BS", h_BD, keys_BSD)
        scores_BS = jnp.where(seen_BS, scores_BS.astype(jnp.float32), MASKED)
        shares_BS = jax.nn.softmax(scores_BS, axis=-1).astype(dtype)
        context_BD = jnp.einsum("BS,BSD->BD", shares_BS, memory_BSD)
        out_BD = h_BD @ self.of_state[...].astype(dtype)
        out_BD += context_BD @ self.of_source[...].astype(dtype)
        return jnp.tanh(out_BD)
