"""T5 (Raffel et al. 2020), behind `protocol.Translator`.

    embed/tokens (V, D), embed/encoder_bias (buckets, N), embed/decoder_bias (buckets, N)
    encoder/…             every leaf of `EncoderBlock`, stacked: leading axis L
    encoder_norm/scale
    decoder/…             every leaf of `DecoderBlock`, stacked: leading axis of its layers
    decoder_norm/scale

Each stack has one table of biases, which all of its layers add to their scores. The output matrix
is the table of tokens. Letters: S positions of the source, T positions of the target.

Attention holds all scores of a layer, since its bias is not one of those that kernels know.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from llm_jax.attention.biased import biased_attention, relative_buckets
from llm_jax.attention.mask import Attend, Cache, Mask
from llm_jax.config import ComputeConfig, ConfigError, EncoderDecoderConfig
from llm_jax.models.common.family import Stacked
from llm_jax.models.common.layers import Norm, Shared, init_std, normal, project
from llm_jax.models.common.quantize import matmul_of
from llm_jax.models.common.stack import (
    Layer,
    Layout,
    run_layers,
)
from llm_jax.models.encoder_decoder.blocks import (
    DecoderBlock,
    DecoderShared,
    EncoderBlock,
    first_caches,
)
from llm_jax.models.protocol import Batch, Context, Hidden, Params
from llm_jax.parallel.mesh import axis_shards, constrain

STACKS = ("encoder", "decoder")


class Ends(nnx.Module):
    """The layers before and after the blocks."""

    def __init__(self, config: EncoderDecoderConfig, rngs: nnx.Rngs):
        layers, D = config.layers, config.d_model
        std = 1.0 if config.scaled_head else init_std(layers)
        table, biases = ("vocab", "embed"), (None, "heads")
        shape = (config.buckets, config.num_heads)
        self.embed = nnx.Dict(
            {
                "tokens": normal(rngs, (config.vocab_size, D), table, std, "table"),
                "encoder_bias": normal(rngs, shape, biases, init_std(layers), "positions"),
                "decoder_bias": normal(rngs, shape, biases, init_std(layers), "positions"),
            }
        )
        self.encoder_norm, self.decoder_norm = Norm(layers, D), Norm(layers, D)


class T5(Stacked):
    """The family `encoder_decoder` (`protocol.Translator`)."""

    ends = Ends

    def layout(self, config: EncoderDecoderConfig) -> Layout:
        """The blocks of the encoder, then those of the decoder."""
        parts = (_layout(config, name).layers for name in STACKS)
        return Layout(tuple(layer for part in parts for layer in part), ())

    def forward(
        self, params: Params, batch: Batch, config: EncoderDecoderConfig, context: Context
    ) -> Hidden:
        """Hidden states of the target (B, T, D), as the output matrix takes them.

        Args:
          batch: int32 `inputs` and `segments` (B, S) of the source, `decoder_inputs` and
            `decoder_segments` (B, T) of the target. Equal numbers of segments see each other.

        Raises:
          ConfigError: the mesh splits the length or the layers, which a decoder alone supports.
        """
        for axis in ("context", "pipeline"):
            if axis_shards(axis) > 1:
                raise ConfigError(f"parallel.{axis} is above 1: T5 cannot be split by it.")
        source_BS, target_BT = batch["segments"], batch["decoder_segments"]
        memory_BSD = self.encode(params, batch["inputs"], source_BS, config, context.compute)
        T = target_BT.shape[1]
        before_TT = jnp.arange(T)[:, None] >= jnp.arange(T)
        attend = _attend_among(
            self.bias(params, "decoder", jnp.arange(T), jnp.arange(T), config),
            (target_BT[:, :, None] == target_BT[:, None]) & before_TT,
        )
        shared = DecoderShared(
            Shared(attend, matmul=matmul_of(context.compute.quantize)),
            memory_BSD,
            target_BT[:, :, None] == source_BS[:, None],
            matmul_of(context.compute.quantize),
        )
        x_BTD, _ = self.decode(
            params, batch["decoder_inputs"], shared, config, context.compute, None
        )
        return Hidden(x_BTD)

    def encode(
        self,
        params: Params,
        tokens_BS: jax.Array,
        segments_BS: jax.Array,
        config: EncoderDecoderConfig,
        compute: ComputeConfig,
    ) -> jax.Array:
        """The encoder's output, (B, S, D) in the compute dtype."""
        S = tokens_BS.shape[1]
        attend = _attend_among(
            self.bias(params, "encoder", jnp.arange(S), jnp.arange(S), config),
            segments_BS[:, :, None] == segments_BS[:, None],
        )
        shared = Shared(attend, matmul=matmul_of(compute.quantize))
        x_BSD = self.embedded(params, tokens_BS, compute)
        stacks, order = {"encoder": params["encoder"]}, _layout(config, "encoder")
        x_BSD, _, _ = run_layers(stacks, x_BSD, shared, order, config, compute, None)
        x_BSD = self.merged_ends(params, config).encoder_norm(x_BSD)
        return constrain(x_BSD, "batch", "length", "act_embed")

    def decode(
        self,
        params: Params,
        tokens_BT: jax.Array,
        shared: DecoderShared,
        config: EncoderDecoderConfig,
        compute: ComputeConfig,
        caches: Cache,
    ) -> tuple[jax.Array, Cache]:
        """Hidden states of the target (B, T, D), as the output matrix takes them, and the caches of
        the target.

        Args:
          caches: tree whose leaves have leading axis L; a block gets one layer (`DecoderBlock`).
        """
        x_BTD = self.embedded(params, tokens_BT, compute)
        stacks, order = {"decoder": params["decoder"]}, _layout(config, "decoder")
        x_BTD, caches, _ = run_layers(stacks, x_BTD, shared, order, config, compute, caches)
        x_BTD = self.merged_ends(params, config).decoder_norm(x_BTD)
        if config.scaled_head:
            x_BTD *= jnp.asarray(config.d_model**-0.5, x_BTD.dtype)
        return constrain(x_BTD, "ends_batch", "length", "act_embed"), caches

    def bias(
        self,
        params: Params,
        stack: str,
        queries_T: jax.Array,
        keys_S: jax.Array,
        config: EncoderDecoderConfig,
    ) -> jax.Array:
        """What scores get by distance, float32 (N, T, S), for queries and keys at these positions.

        Args:
          stack: one of `STACKS`.
        """
        found_TS = relative_buckets(
            keys_S[None, :] - queries_T[:, None],
            causal=stack == "decoder",
            buckets=config.buckets,
            max_distance=config.max_distance,
        )
        table_bN = params["embed"][f"{stack}_bias"].astype(jnp.float32)
        return table_bN[found_TS].transpose(2, 0, 1)

    def begin(
        self,
        params: Params,
        tokens_BS: jax.Array,
        segments_BS: jax.Array,
        room: int,
        config: EncoderDecoderConfig,
        compute: ComputeConfig,
    ) -> tuple[Cache, Cache]:
        """See `protocol.Translator`."""
        memory_BSD = self.encode(params, tokens_BS, segments_BS, config, compute)
        return first_caches(params, memory_BSD, segments_BS, room, config.layers)

    def step(
        self,
        params: Params,
        token_B: jax.Array,
        i: jax.Array,
        source: Cache,
        own: Cache,
        config: EncoderDecoderConfig,
        compute: ComputeConfig,
    ) -> tuple[jax.Array, Cache]:
        """See `protocol.Translator`."""
        slots = jnp.arange(own["k"].shape[2])
        bias_N1S = self.bias(params, "decoder", i[None], slots, config)

        def attend(
            q: Any, k: Any, v: Any, mask: Mask, cache: Cache, sinks_N: None = None
        ) -> tuple[jax.Array, Cache]:
            kept = {
                name: jax.lax.dynamic_update_slice_in_dim(cache[name], new, i, axis=1)
                for name, new in (("k", k), ("v", v))
            }
            seen_B1S = jnp.broadcast_to(slots <= i, (len(q), 1, len(slots)))
            return biased_attention(q, kept["k"], kept["v"], bias_N1S, seen_B1S), kept

        shared = DecoderShared(Shared(attend), None, source["seen"][0][:, None])
        keys = {name: source[name] for name in ("k", "v")}
        caches = {"own": own, "source": keys}
        x_B1D, own = self.decode(params, token_B[:, None], shared, config, compute, caches)
        return x_B1D[:, 0], own

    def logits(self, x: jax.Array, params: Params, config: EncoderDecoderConfig) -> jax.Array:
        """float32 logits (…, V) of hidden states (…, D)."""
        return project(x, self.unembedding(params, config), None)


ENCODER_DECODER = T5()


@functools.cache
def _layout(config: EncoderDecoderConfig, stack: str) -> Layout:
    """The blocks of one stack, which are all alike."""
    if stack == "encoder":
        count, layer = config.num_layers, Layer(stack, EncoderBlock, Mask(causal=False))
    else:
        count, layer = config.num_decoder_layers, Layer(stack, DecoderBlock, Mask())
    return Layout((layer,) * count, ((0, count, 1),))


def _attend_among(bias_NTT: jax.Array, seen_BTT: jax.Array) -> Attend:
    return jax.tree_util.Partial(_attend, bias_NTT, seen_BTT)


def _attend(
    bias_NTT: jax.Array,
    seen_BTT: jax.Array,
    q: Any,
    k: Any,
    v: Any,
    mask: Mask,
    cache: Cache,
    sinks_N: None = None,
) -> tuple[jax.Array, Cache]:
    """`Attend` of a model without attention sinks."""
    return biased_attention(q, k, v, bias_NTT, seen_BTT), cache
