"""Language models of recurrent layers, behind `protocol.Generative`.

embed/tokens (V, D)
blocks/…       every leaf of `cells.Recurrence`, stacked: leading axis L
[unembed (D, V)]   absent if embeddings are tied
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from llm_jax.attention.mask import Cache, Mask
from llm_jax.config import ComputeConfig, RecurrentConfig, RecurrentEncoderDecoderConfig
from llm_jax.models.common.family import Stacked, blocks_of
from llm_jax.models.common.layers import init_std, normal, project
from llm_jax.models.common.quantize import matmul_of
from llm_jax.models.common.stack import (
    Layer,
    Layout,
    run_layers,
    run_stages,
)
from llm_jax.models.protocol import Batch, Context, Hidden, Params
from llm_jax.models.recurrent.cells import Recurrence, Steps
from llm_jax.parallel.mesh import constrain


class Ends(nnx.Module):
    """The layers before and after the recurrent ones."""

    def __init__(self, config: RecurrentConfig | RecurrentEncoderDecoderConfig, rngs: nnx.Rngs):
        V, D, std = config.vocab_size, config.d_model, init_std(config.layers)
        tokens = normal(rngs, (V, D), ("vocab", "embed"), std, "table")
        self.embed = nnx.Dict({"tokens": tokens})
        if not config.tie_embeddings:
            self.unembed = normal(rngs, (D, V), ("embed", "vocab"), std, "table")


class Gated(Stacked):
    """What recurrent families share."""

    def embedded(self, params: Params, tokens_BT: jax.Array, compute: ComputeConfig) -> jax.Array:
        """The rows of the tokens times √D (Vaswani et al. 2017): gates see numbers of about 1."""
        x_BTD = super().embedded(params, tokens_BT, compute)
        return x_BTD * jnp.asarray(math.sqrt(x_BTD.shape[-1]), x_BTD.dtype)

    def logits(self, x: jax.Array, params: Params, config: Any) -> jax.Array:
        """float32 logits (…, V) of hidden states (…, D)."""
        return project(x, self.unembedding(params, config), None)


class Recurrent(Gated):
    """The family `recurrent`."""

    ends = Ends

    def layout(self, config: RecurrentConfig) -> Layout:
        """The layers in order, which are all alike."""
        return _layout(config)

    def forward(
        self, params: Params, batch: Batch, config: RecurrentConfig, context: Context
    ) -> Hidden:
        """The last layer's states; a document begins with the state of zeros."""
        x_BTD = self.embedded(params, batch["inputs"], context.compute)
        begins_BT = batch["positions"] == 0
        shared = Steps(begins_BT, jnp.ones_like(begins_BT), matmul_of(context.compute.quantize))
        order = self.layout(config)
        stacks = blocks_of(params, order)
        if context.schedule is None:
            x_BTD, _, _ = run_layers(stacks, x_BTD, shared, order, config, context.compute, None)
        else:
            assert isinstance(stacks, dict)  # only inference takes the blocks apart
            x_BTD, _ = run_stages(
                stacks, x_BTD, shared, order, config, context.compute, context.schedule
            )
        return Hidden(constrain(x_BTD, "ends_batch", "stream_length", "act_embed"))

    def hidden(
        self,
        params: Params,
        tokens_BT: jax.Array,
        positions_BT: jax.Array,
        attend: Any,
        config: RecurrentConfig,
        compute: ComputeConfig,
        caches: Cache,
    ) -> tuple[jax.Array, Cache, None]:
        """See `protocol.Generative`: the caches are the states after the last token of each row.

        Args:
          positions_BT: padding after a row repeats the position of its last token.
          attend: not used.
        """
        x_BTD = self.embedded(params, tokens_BT, compute)
        counts_BT = jnp.diff(positions_BT, axis=1, prepend=-1) > 0
        shared = Steps(jnp.zeros_like(counts_BT), counts_BT, matmul_of(compute.quantize))
        order = self.layout(config)
        x_BTD, caches, _ = run_layers(
            blocks_of(params, order), x_BTD, shared, order, config, compute, caches
        )
        return x_BTD, caches, None


RECURRENT = Recurrent()


@functools.cache
def _layout(config: RecurrentConfig) -> Layout:
    layer = Layer("blocks", Recurrence, Mask(True))
    return Layout((layer,) * config.num_layers, ((0, config.num_layers, 1),))
