"""BERT (Devlin et al. 2019) with the head that `model.head` names, behind `protocol.Model`.

    embed/tokens (V, D), embed/positions (P, D), embed/types (2, D)
    embed_norm/…          after the sum of the three
    blocks/…              every leaf of `EncoderBlock`, stacked: leading axis L
    head/dense (D, D), head/dense_bias (D,), head/norm/…, head/bias (V,)           masked
    [pair/pool (D, D), pair/pool_bias (D,), pair/out (D, 2), pair/out_bias (2,)]   next_sentence
    labels/…              other heads (`heads.py`)

The output matrix is the table of tokens. A batch is that of a decoder, and may have `types`; equal
numbers of `segments` see each other, so padding has a number of its own.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from llm_jax.attention.mask import Cache, Mask
from llm_jax.config import ConfigError, EncoderConfig
from llm_jax.models.common.activations import ACTIVATIONS
from llm_jax.models.common.attend import packed_attend
from llm_jax.models.common.family import Stacked
from llm_jax.models.common.layers import (
    Attention,
    Mlp,
    Norm,
    Shared,
    init_std,
    normal,
    project,
    zeros,
)
from llm_jax.models.common.quantize import matmul_of
from llm_jax.models.common.stack import (
    Layer,
    Layout,
    run_layers,
    run_stages,
)
from llm_jax.models.encoder.heads import label_layers, label_outputs
from llm_jax.models.protocol import Batch, Context, Hidden, Params
from llm_jax.parallel.mesh import axis_shards, constrain


class EncoderBlock(nnx.Module):
    """Attention on both sides, then an MLP; each sum with the residual stream is normalised."""

    def __init__(self, config: EncoderConfig, rngs: nnx.Rngs):
        layers = config.layers
        self.attn = Attention(layers, rngs)
        self.attn_norm = Norm(layers, config.d_model)
        self.mlp = Mlp(layers, rngs)
        self.mlp_norm = Norm(layers, config.d_model)

    def __call__(
        self, x_BTD: jax.Array, shared: Shared, mask: Mask, cache: Cache
    ) -> tuple[jax.Array, Cache, None]:
        """x_BTD after the block, in its dtype; the cache is passed through."""
        h_BTD, cache = self.attn(x_BTD, shared, mask, cache)
        x_BTD = constrain(self.attn_norm(x_BTD + h_BTD), "batch", "length", "act_embed")
        h_BTD = self.mlp(x_BTD, shared.matmul)
        return constrain(self.mlp_norm(x_BTD + h_BTD), "batch", "length", "act_embed"), cache, None


class Ends(nnx.Module):
    """The layers before and after the blocks."""

    def __init__(self, config: EncoderConfig, rngs: nnx.Rngs):
        D, layers = config.d_model, config.layers
        std = init_std(layers)
        table, fixed = ("vocab", "embed"), ("position", "embed")
        self.embed = nnx.Dict(
            {
                "tokens": normal(rngs, (config.vocab_size, D), table, std, "table"),
                "positions": normal(rngs, (config.max_seq_len, D), fixed, std, "positions"),
                "types": normal(rngs, (config.types, D), (None, "embed"), std, "positions"),
            }
        )
        self.embed_norm = Norm(layers, D)
        if (made := label_layers(config, rngs)) is not None:
            self.labels = made
        if config.head != "masked":
            return
        self.head = nnx.Dict(
            {
                "dense": normal(rngs, (D, D), ("embed", None), std),
                "dense_bias": zeros((D,), ("norm",)),
                "norm": Norm(layers, D),
                "bias": zeros((config.vocab_size,), ("vocab",)),
            }
        )
        if config.next_sentence:
            self.pair = nnx.Dict(
                {
                    "pool": normal(rngs, (D, D), ("embed", None), std),
                    "pool_bias": zeros((D,), ("norm",)),
                    "out": normal(rngs, (D, 2), ("embed", None), std),
                    "out_bias": zeros((2,), (None,)),
                }
            )


class Bert(Stacked):
    """The family `encoder` (`protocol.Model`)."""

    ends = Ends

    def layout(self, config: EncoderConfig) -> Layout:
        """The blocks in order, which are all alike."""
        return _layout(config)

    def forward(
        self, params: Params, batch: Batch, config: EncoderConfig, context: Context
    ) -> Hidden:
        """Hidden states after the last block.

        Raises:
          ConfigError: the mesh splits the length, which a decoder alone supports.
        """
        if axis_shards("context") > 1:
            raise ConfigError("parallel.context is above 1: an encoder's length cannot be split.")
        compute, dtype = context.compute, jnp.dtype(context.compute.dtype)
        embed, tokens_BT = params["embed"], batch["inputs"]
        x_BTD = self.embedded(params, tokens_BT, compute)
        x_BTD += embed["positions"].astype(dtype)[batch["positions"]]
        x_BTD += embed["types"].astype(dtype)[batch.get("types", jnp.zeros_like(tokens_BT))]
        x_BTD = self.merged_ends(params, config).embed_norm(x_BTD)
        attend = packed_attend(config.layers, context, batch["segments"])
        shared = Shared(attend, matmul=matmul_of(compute.quantize))
        stacks, order = {"blocks": params["blocks"]}, self.layout(config)
        if context.schedule is None:
            x_BTD, _, routing = run_layers(stacks, x_BTD, shared, order, config, compute, None)
        else:
            x_BTD, routing = run_stages(
                stacks, x_BTD, shared, order, config, compute, context.schedule
            )
        return Hidden(constrain(x_BTD, "ends_batch", "length", "act_embed"), routing)

    def features(self, x: jax.Array, params: Params, config: EncoderConfig) -> jax.Array:
        """What the output matrix takes of hidden states (…, D), after the head's own layer."""
        head: Any = self.merged_ends(params, config).head
        y = jnp.einsum("...D,DE->...E", x, head["dense"][...].astype(x.dtype))
        y = ACTIVATIONS[config.activation](y + head["dense_bias"][...].astype(x.dtype))
        normed: jax.Array = head["norm"](y)
        return normed

    def logits(self, x: jax.Array, params: Params, config: EncoderConfig) -> jax.Array:
        """float32 logits (…, V) of hidden states (…, D)."""
        y = self.features(x, params, config)
        return project(y, self.unembedding(params, config), None, params["head"]["bias"])

    def pair_logits(self, x_BD: jax.Array, params: Params, config: EncoderConfig) -> jax.Array:
        """float32 logits (B, 2) that the second half follows the first, and that it does not.

        Args:
          x_BD: hidden states of the first position.
        """
        pair = {name: leaf.astype(x_BD.dtype) for name, leaf in params["pair"].items()}
        pooled_BD = jnp.tanh(x_BD @ pair["pool"] + pair["pool_bias"])
        return (pooled_BD @ pair["out"] + pair["out_bias"]).astype(jnp.float32)

    def label_outputs(self, x_BTD: jax.Array, params: Params, config: EncoderConfig) -> jax.Array:
        """float32 outputs of a head with labels: (B, C) of `classify`, else (B, T, C)."""
        x = x_BTD[:, 0] if config.head == "classify" else x_BTD
        return label_outputs(x, params["labels"])


ENCODER = Bert()


@functools.cache
def _layout(config: EncoderConfig) -> Layout:
    """The blocks in order, which are all alike."""
    layer = Layer("blocks", EncoderBlock, Mask(causal=False))
    return Layout((layer,) * config.num_layers, ((0, config.num_layers, 1),))
