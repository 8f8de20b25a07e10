"""Recurrent encoder-decoders with attention, behind `protocol.Translator`.

    embed/tokens (V, D)
    encoder/{ahead,back}/…   every leaf of `BothWays`, stacked: leading axis L
    decoder/…                every leaf of `cells.Recurrence`, stacked: leading axis of its layers
    attention/…              of `SourceAttention`
    [unembed (D, V)]         absent if embeddings are tied

The decoder runs position by position, in training too, since each step is fed with the attention's
output of the step before. Letters: S positions of the source, T of the target.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from llm_jax.attention.mask import Cache, Mask
from llm_jax.config import ComputeConfig, ConfigError, RecurrentEncoderDecoderConfig
from llm_jax.models.common.layers import Product, dense
from llm_jax.models.common.quantize import matmul_of
from llm_jax.models.common.stack import Layer, Layout, declare, run_layers
from llm_jax.models.protocol import Batch, Context, Hidden, Params
from llm_jax.models.recurrent.attentive import BothSteps, BothWays, SourceAttention
from llm_jax.models.recurrent.cells import Recurrence, Steps, zero_state
from llm_jax.models.recurrent.network import Ends, Gated
from llm_jax.parallel.mesh import axis_shards, constrain, gather_fsdp

Config = RecurrentEncoderDecoderConfig


class AttentiveEnds(Ends):
    """The layers beside the recurrent ones."""

    def __init__(self, config: Config, rngs: nnx.Rngs):
        super().__init__(config, rngs)
        self.attention = SourceAttention(config, rngs)


class _Decoder(NamedTuple):
    """The modules of a decoder with their arrays, gathered."""

    cells: list[Recurrence]
    attention: SourceAttention


class RecurrentEncoderDecoder(Gated):
    """The family `recurrent_encoder_decoder` (`protocol.Translator`)."""

    ends = AttentiveEnds

    def layout(self, config: Config) -> Layout:
        """The layers of the encoder, then those of the decoder."""
        decoder = Layer("decoder", Recurrence, Mask())
        return Layout((*_encoder(config).layers, *[decoder] * config.num_decoder_layers), ())

    def forward(self, params: Params, batch: Batch, config: Config, context: Context) -> Hidden:
        """The attention's outputs for the target, (B, T, D).

        Args:
          batch: int32 `inputs` and `segments` (B, S) of the source, `decoder_inputs` and
            `decoder_segments` (B, T) of the target. Equal numbers of segments see each other; 0 is
            padding.

        Raises:
          ConfigError: the mesh splits the length or the layers.
        """
        for axis in ("context", "pipeline"):
            if axis_shards(axis) > 1:
                raise ConfigError(
                    f"parallel.{axis} is above 1: model.kind {config.kind!r} cannot be split by it."
                )
        compute, target_BT = context.compute, batch["decoder_segments"]
        memory_BSD = self.encode(params, batch["inputs"], batch["segments"], config, compute)
        x_BTD = self.embedded(params, batch["decoder_inputs"], compute)
        decoder, product = self._decoder(params, config), matmul_of(compute.quantize)
        keys_BSD = decoder.attention.read(memory_BSD)
        seen_BTS = target_BT[:, :, None] == batch["segments"][:, None]
        first_BTD = decoder.attention.first(memory_BSD, seen_BTS)
        begins_BT = jnp.diff(target_BT, axis=1, prepend=-1) != 0

        def step(carry: tuple[Any, jax.Array], now: tuple[jax.Array, ...]) -> tuple[Any, jax.Array]:
            (states, fed_BD), (gates_BGD, begins_B, first_BD, seen_BS) = carry, now
            states = jax.tree.map(lambda leaf: jnp.where(begins_B[:, None], 0.0, leaf), states)
            fed_BD = jnp.where(begins_B[:, None], first_BD, fed_BD)
            states, out_BD = _advance(
                decoder, gates_BGD, states, fed_BD, keys_BSD, memory_BSD, seen_BS
            )
            return (states, out_BD), out_BD

        if compute.remat != "none":
            step = jax.checkpoint(step, prevent_cse=False)
        gates_BTGD = decoder.cells[0].gates(x_BTD, product)
        ordered = (gates_BTGD, begins_BT, first_BTD, seen_BTS)
        zeros = [zero_state(config.cell, *x_BTD[:, 0].shape) for _ in decoder.cells]
        start = (zeros, jnp.zeros_like(x_BTD[:, 0]))
        steps = tuple(jnp.moveaxis(leaf, 1, 0) for leaf in ordered)
        _, out_TBD = jax.lax.scan(step, start, steps)
        return Hidden(constrain(jnp.moveaxis(out_TBD, 0, 1), "ends_batch", "length", "act_embed"))

    def encode(
        self,
        params: Params,
        tokens_BS: jax.Array,
        segments_BS: jax.Array,
        config: Config,
        compute: ComputeConfig,
    ) -> jax.Array:
        """The encoder's states, (B, S, D) in the compute dtype; each segment is read alone."""
        product = matmul_of(compute.quantize)
        shared = BothSteps(_steps(segments_BS, product), _steps(segments_BS[:, ::-1], product))
        x_BSD = self.embedded(params, tokens_BS, compute)
        stacks, order = {"encoder": params["encoder"]}, _encoder(config)
        x_BSD, _, _ = run_layers(stacks, x_BSD, shared, order, config, compute, None)
        return x_BSD

    def begin(
        self,
        params: Params,
        tokens_BS: jax.Array,
        segments_BS: jax.Array,
        room: int,
        config: Config,
        compute: ComputeConfig,
    ) -> tuple[Cache, Cache]:
        """See `protocol.Translator`: the source's states and keys, and the decoder's states with
        what is fed, whose size does not depend on `room`."""
        memory_BSD = self.encode(params, tokens_BS, segments_BS, config, compute)
        attention, seen_BS = self._decoder(params, config).attention, segments_BS > 0
        source = {"keys": attention.read(memory_BSD), "memory": memory_BSD, "seen": seen_BS}
        fed_B1D = attention.first(memory_BSD, seen_BS[:, None])
        states = zero_state(config.cell, config.num_decoder_layers, len(tokens_BS), config.d_model)
        own = {"states": states, "fed": fed_B1D[None, :, 0]}
        return {name: leaf[None] for name, leaf in source.items()}, own

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
        decoder = self._decoder(params, config)
        x_B1D = self.embedded(params, token_B[:, None], compute)
        gates_BGD = decoder.cells[0].gates(x_B1D, dense)[:, 0]
        states = [
            jax.tree.map(lambda leaf, layer=layer: leaf[layer], own["states"])
            for layer in range(config.num_decoder_layers)
        ]
        read = (source[name][0] for name in ("keys", "memory", "seen"))
        states, out_BD = _advance(decoder, gates_BGD, states, own["fed"][0], *read)
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
        return out_BD, {"states": stacked, "fed": out_BD[None]}

    def _decoder(self, params: Params, config: Config) -> _Decoder:
        graphdef, specs = declare(Recurrence, config)
        cells = []
        for layer in range(config.num_decoder_layers):
            arrays = jax.tree.map(
                lambda leaf, spec, layer=layer: gather_fsdp(leaf[layer], spec.axes),
                params["decoder"],
                specs,
            )
            cells.append(nnx.merge(graphdef, arrays))
        graphdef, specs = declare(SourceAttention, config)
        arrays = jax.tree.map(
            lambda leaf, spec: gather_fsdp(leaf, spec.axes), params["attention"], specs
        )
        return _Decoder(cells, nnx.merge(graphdef, arrays))


RECURRENT_ENCODER_DECODER = RecurrentEncoderDecoder()


def _advance(
    decoder: _Decoder,
    gates_BGD: jax.Array,
    states: list[Cache],
    fed_BD: jax.Array,
    keys_BSD: jax.Array,
    memory_BSD: jax.Array,
    seen_BS: jax.Array,
) -> tuple[list[Cache], jax.Array]:
    """One position of the target: the state of each layer after it, and the attention's output."""
    after, gates_BGD = [], gates_BGD + decoder.attention.fed(fed_BD)
    for cell, above, state in zip(decoder.cells, [*decoder.cells[1:], None], states, strict=True):
        after.append(cell.advance(gates_BGD, state))
        h_BD = after[-1]["h"].astype(fed_BD.dtype)
        if above is not None:
            gates_BGD = above.gates(h_BD[:, None], dense)[:, 0]
    return after, decoder.attention(h_BD, keys_BSD, memory_BSD, seen_BS)


def _steps(segments_BS: jax.Array, product: Product) -> Steps:
    return Steps(jnp.diff(segments_BS, axis=1, prepend=-1) != 0, segments_BS > 0, product)


@functools.cache
def _encoder(config: Config) -> Layout:
    count = config.num_layers
    return Layout((Layer("encoder", BothWays, Mask(False)),) * count, ((0, count, 1),))
