"""The original Transformer (Vaswani et al. 2017), behind `protocol.Translator`.

    embed/tokens (V, D)
    [embed/encoder_positions, embed/decoder_positions (2 + P, D)]   learned positions
    [encoder_embed_norm/…, decoder_embed_norm/…]                    with `embed_norm`
    encoder/…          every leaf of BERT's `EncoderBlock`, stacked: leading axis L
    decoder/…          every leaf of `DecoderBlock`, stacked: leading axis of its layers
    unembed_bias (V,)

The output matrix is the table of tokens. The paper has no bias of the logits; Marian and BART have
one, and it begins at zero. Letters: S positions of the source, T positions of the target.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from llm_jax.attention.biased import biased_attention
from llm_jax.attention.mask import Cache, Mask
from llm_jax.config import ComputeConfig, ConfigError, TransformerEncoderDecoderConfig
from llm_jax.models.common.attend import packed_attend
from llm_jax.models.common.family import Stacked
from llm_jax.models.common.layers import Norm, Shared, init_std, normal, project, zeros
from llm_jax.models.common.quantize import matmul_of
from llm_jax.models.common.stack import Layer, Layout, run_layers
from llm_jax.models.encoder.bert import EncoderBlock
from llm_jax.models.encoder_decoder.blocks import DecoderShared, first_caches
from llm_jax.models.encoder_decoder.post_norm import DecoderBlock
from llm_jax.models.protocol import Batch, Context, Hidden, Params
from llm_jax.parallel.mesh import axis_shards, constrain

Config = TransformerEncoderDecoderConfig
STACKS = ("encoder", "decoder")
UNREAD = 2
"""First rows of a learned table of positions, which nothing reads: BART's tables have them."""


class Ends(nnx.Module):
    """The layers before and after the blocks."""

    def __init__(self, config: Config, rngs: nnx.Rngs):
        layers, D = config.layers, config.d_model
        std = init_std(layers)
        table = normal(rngs, (config.vocab_size, D), ("vocab", "embed"), std, "table")
        embed = {"tokens": table}
        if config.positions == "learned":
            shape, fixed = (UNREAD + config.max_seq_len, D), ("position", "embed")
            for stack in STACKS:
                embed[f"{stack}_positions"] = normal(rngs, shape, fixed, std, "positions")
        self.embed = nnx.Dict(embed)
        if config.embed_norm:
            self.encoder_embed_norm, self.decoder_embed_norm = Norm(layers, D), Norm(layers, D)
        self.unembed_bias = zeros((config.vocab_size,), ("vocab",))


class Transformer(Stacked):
    """The family `transformer_encoder_decoder` (`protocol.Translator`)."""

    ends = Ends

    def layout(self, config: Config) -> Layout:
        """The blocks of the encoder, then those of the decoder."""
        parts = (_layout(config, name).layers for name in STACKS)
        return Layout(tuple(layer for part in parts for layer in part), ())

    def forward(self, params: Params, batch: Batch, config: Config, context: Context) -> Hidden:
        """Hidden states of the target (B, T, D), as the output matrix takes them.

        Args:
          batch: int32 `inputs` and `segments` (B, S) of the source, `decoder_inputs` and
            `decoder_segments` (B, T) of the target. Equal numbers of segments see each other, and
            positions begin anew with each.

        Raises:
          ConfigError: the mesh splits the length or the layers, or a row is longer than the model
            takes.
        """
        for axis in ("context", "pipeline"):
            if axis_shards(axis) > 1:
                raise ConfigError(
                    f"parallel.{axis} is above 1: model.kind {config.kind!r} cannot be split by it."
                )
        for name in ("segments", "decoder_segments"):
            if batch[name].shape[1] > config.max_seq_len:
                raise ConfigError(
                    f"model.max_seq_len is {config.max_seq_len}, but a source or a target has up "
                    f"to {batch[name].shape[1]} tokens: raise it, or shorten data.seq_len."
                )
        compute, target_BT = context.compute, batch["decoder_segments"]
        memory_BSD = self._encode(params, batch["inputs"], batch["segments"], config, context)
        shared = DecoderShared(
            Shared(
                packed_attend(config.layers, context, target_BT), matmul=matmul_of(compute.quantize)
            ),
            memory_BSD,
            target_BT[:, :, None] == batch["segments"][:, None],
            matmul_of(compute.quantize),
        )
        tokens_BT, places_BT = batch["decoder_inputs"], _places(target_BT)
        x_BTD = self._read(params, "decoder", tokens_BT, places_BT, config, compute)
        x_BTD, _ = self._decode(params, x_BTD, shared, config, compute, None)
        return Hidden(x_BTD)

    def logits(self, x: jax.Array, params: Params, config: Config) -> jax.Array:
        """float32 logits (…, V) of hidden states (…, D)."""
        return project(x, self.unembedding(params, config), None, params["unembed_bias"])

    def begin(
        self,
        params: Params,
        tokens_BS: jax.Array,
        segments_BS: jax.Array,
        room: int,
        config: Config,
        compute: ComputeConfig,
    ) -> tuple[Cache, Cache]:
        """See `protocol.Translator`."""
        memory_BSD = self._encode(params, tokens_BS, segments_BS, config, Context(compute))
        return first_caches(params, memory_BSD, segments_BS, room, config.layers)

    def step(
        self,
        params: Params,
        token_B: jax.Array,
        i: jax.Array,
        source: Cache,
        own: Cache,
        config: Config,
        compute: ComputeConfig,
    ) -> tuple[jax.Array, Cache]:
        """See `protocol.Translator`."""
        slots, scale = jnp.arange(own["k"].shape[2]), 1 / math.sqrt(config.layers.head_dim)

        def attend(
            q: Any, k: Any, v: Any, mask: Mask, cache: Cache, sinks_N: None = None
        ) -> tuple[jax.Array, Cache]:
            kept = {
                name: jax.lax.dynamic_update_slice_in_dim(cache[name], new, i, axis=1)
                for name, new in (("k", k), ("v", v))
            }
            seen_B1S = jnp.broadcast_to(slots <= i, (len(q), 1, len(slots)))
            return biased_attention(scale * q, kept["k"], kept["v"], None, seen_B1S), kept

        shared = DecoderShared(Shared(attend), None, source["seen"][0][:, None])
        caches = {"own": own, "source": {name: source[name] for name in ("k", "v")}}
        places_B1 = jnp.full((len(token_B), 1), i)
        x_B1D = self._read(params, "decoder", token_B[:, None], places_B1, config, compute)
        x_B1D, own = self._decode(params, x_B1D, shared, config, compute, caches)
        return x_B1D[:, 0], own

    def _encode(
        self,
        params: Params,
        tokens_BS: jax.Array,
        segments_BS: jax.Array,
        config: Config,
        context: Context,
    ) -> jax.Array:
        """The encoder's output, (B, S, D) in the compute dtype."""
        compute, places_BS = context.compute, _places(segments_BS)
        attend = packed_attend(config.layers, context, segments_BS)
        shared = Shared(attend, matmul=matmul_of(compute.quantize))
        x_BSD = self._read(params, "encoder", tokens_BS, places_BS, config, compute)
        stacks, order = {"encoder": params["encoder"]}, _layout(config, "encoder")
        x_BSD, _, _ = run_layers(stacks, x_BSD, shared, order, config, compute, None)
        return constrain(x_BSD, "batch", "length", "act_embed")

    def _decode(
        self,
        params: Params,
        x_BTD: jax.Array,
        shared: DecoderShared,
        config: Config,
        compute: ComputeConfig,
        caches: Cache,
    ) -> tuple[jax.Array, Cache]:
        """Hidden states after the last block, (B, T, D), and the caches of the target."""
        stacks, order = {"decoder": params["decoder"]}, _layout(config, "decoder")
        x_BTD, caches, _ = run_layers(stacks, x_BTD, shared, order, config, compute, caches)
        return constrain(x_BTD, "ends_batch", "length", "act_embed"), caches

    def _read(
        self,
        params: Params,
        stack: str,
        tokens_BT: jax.Array,
        places_BT: jax.Array,
        config: Config,
        compute: ComputeConfig,
    ) -> jax.Array:
        """What the first block takes, (B, T, D): tokens and their positions."""
        x_BTD = self.embedded(params, tokens_BT, compute)
        if config.scale_embeddings:
            x_BTD *= jnp.asarray(math.sqrt(config.d_model), x_BTD.dtype)
        if config.positions == "learned":
            table_PD = params["embed"][f"{stack}_positions"][UNREAD:]
        else:
            table_PD = jnp.asarray(sinusoids(config.max_seq_len, config.d_model))
        x_BTD += jnp.take(table_PD, places_BT, axis=0, mode="clip").astype(x_BTD.dtype)
        if config.embed_norm:
            x_BTD = getattr(self.merged_ends(params, config), f"{stack}_embed_norm")(x_BTD)
        return constrain(x_BTD, "batch", "length", "act_embed")


TRANSFORMER = Transformer()


@functools.cache
def sinusoids(rows: int, width: int) -> np.ndarray:
    """(rows, width) float32: sines of each position, then cosines, of width/2 wavelengths each.

    Vaswani et al. 2017, §3.5, has them in turns, which is the same but for the order of columns.
    """
    rates = 10_000.0 ** (-np.arange(0, width, 2) / width)
    angles = np.arange(rows)[:, None] * rates
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)


def _places(segments_BT: jax.Array) -> jax.Array:
    """int32 (B, T): how far each position is from the first of its segment."""
    numbers = jnp.arange(segments_BT.shape[1], dtype=jnp.int32)
    begins_BT = jnp.diff(segments_BT, axis=1, prepend=-1) != 0
    return numbers - jax.lax.cummax(jnp.where(begins_BT, numbers, 0), axis=1)


@functools.cache
def _layout(config: Config, stack: str) -> Layout:
    """The blocks of one stack, which are all alike."""
    if stack == "encoder":
        count, layer = config.num_layers, Layer(stack, EncoderBlock, Mask(causal=False))
    else:
        count, layer = config.num_decoder_layers, Layer(stack, DecoderBlock, Mask())
    return Layout((layer,) * count, ((0, count, 1),))
