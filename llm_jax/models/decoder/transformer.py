"""The decoder-only Transformer over a plain nested dict of arrays.

    embed/tokens (V, D)   [embed/positions (P, D)]   [embed_norm/…]
    blocks/…              every leaf of `block.Block`, stacked: leading axis L
    [dense_blocks/…       the layers without experts, if other layers have experts]
    [final_norm/scale (D,)] [final_norm/bias]
    [unembed (D, V)]      absent if embeddings are tied
    [unembed_bias (V,)]

NNX is used only to declare modules and to merge them with their arrays. `jit`, `grad`, `scan` and
`checkpoint` are JAX's own.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx

from llm_jax.attention.mask import Attend, Cache, Mask
from llm_jax.config import ComputeConfig, ModelConfig
from llm_jax.models.common.attend import packed_attend
from llm_jax.models.common.family import Stacked, blocks_of
from llm_jax.models.common.layers import Norm, Shared, init_std, normal, project, zeros
from llm_jax.models.common.moe import Routing
from llm_jax.models.common.quantize import matmul_of
from llm_jax.models.common.rope import rotates_late, rotations
from llm_jax.models.common.stack import (
    Layer,
    Layout,
    MakeModule,
    run_layers,
    run_stages,
)
from llm_jax.models.decoder.block import Block, expert_block
from llm_jax.models.decoder.induction import induction_start
from llm_jax.models.protocol import Batch, Context, Hidden, Params
from llm_jax.parallel.mesh import constrain
from llm_jax.parallel.pipeline import Schedule


class Ends(nnx.Module):
    """The layers before and after the blocks: embeddings, final norm and unembedding."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        V, D, std = config.vocab_size, config.d_model, init_std(config)
        embed = {"tokens": normal(rngs, (V, D), ("vocab", "embed"), std, "table")}
        if config.positions == "learned":
            rows = config.max_seq_len + config.position_offset
            shape, axes = (rows, D), ("position", "embed")
            embed["positions"] = normal(rngs, shape, axes, std, "positions")
        self.embed = nnx.Dict(embed)
        if config.embed_norm:
            self.embed_norm = Norm(config, D)
        self.final_norm = Norm(config, D)
        if not config.tie_embeddings:
            self.unembed = normal(rngs, (D, V), ("embed", "vocab"), std, "table")
        if "unembed" in config.biases:
            self.unembed_bias = zeros((V,), ("vocab",))


START = {"normal": lambda params, config: params, "induction": induction_start}
"""`model.attention_init` → what it makes of parameters from a normal distribution."""


@dataclass(frozen=True)
class Decoder(Stacked):
    """The family `decoder` (`protocol.Generative`); another `block` makes another family."""

    block: MakeModule = Block
    """Constructor of the layers: (config, rngs) -> a module that is called as `Block` is."""
    expert_block: MakeModule = expert_block
    """The same for layers with experts."""
    ends = Ends

    def layout(self, config: ModelConfig) -> Layout:
        """The blocks in order: which have experts, and which attend to a window only."""
        return _layout(config, self.block, self.expert_block)

    def init(self, config: ModelConfig, key: jax.Array) -> Params:
        """New float32 parameters, as a nested dict."""
        return START[config.attention_init](super().init(config, key), config)

    def forward(
        self, params: Params, batch: Batch, config: ModelConfig, context: Context
    ) -> Hidden:
        """Final hidden states, after the last norm."""
        attend = packed_attend(config, context, batch["segments"])
        x_BTD, _, routing = self.hidden(
            params,
            batch["inputs"],
            batch["positions"],
            attend,
            config,
            context.compute,
            schedule=context.schedule,
        )
        return Hidden(x_BTD, routing)

    def hidden(
        self,
        params: Params,
        tokens_BT: jax.Array,
        positions_BT: jax.Array,
        attend: Attend,
        config: ModelConfig,
        compute: ComputeConfig,
        caches: Cache = None,
        schedule: Schedule | None = None,
    ) -> tuple[jax.Array, Cache, Routing | None]:
        """Final hidden states, after the last norm.

        Args:
          params: tree of `init`.
          tokens_BT: int32 token ids.
          positions_BT: int32 position of each token in its document.
          attend: computes attention: `packed_attend` in training, a KV cache in `infer/`.
          caches: tree whose leaves have leading axis L; `attend` gets one layer at a time.
          schedule: schedule of the pipeline, if the mesh has one. Then `caches` must be None.

        Returns:
          x_BTD in the compute dtype, the updated caches, and the `Routing` of the layers with
          experts, stacked (None without experts).
        """
        dtype = jnp.dtype(compute.dtype)
        x_BTD = self.embedded(params, tokens_BT, compute)
        if config.positions == "learned":
            table = params["embed"]["positions"].astype(dtype)
            x_BTD += table[positions_BT + config.position_offset]
        times = math.sqrt(config.d_model) if config.scale_embeddings else 1.0
        times *= config.embed_multiplier
        if times != 1:
            x_BTD *= jnp.asarray(times, dtype)
        order, ends = self.layout(config), self.merged_ends(params, config)
        if config.embed_norm:
            x_BTD = ends.embed_norm(x_BTD)
        x_BTD = constrain(x_BTD, "batch", "stream_length", "act_embed")
        rope = rotations(config, positions_BT) if config.positions == "rope" else None
        late = caches is not None and rotates_late(config)
        shared = Shared(attend, rope, matmul_of(compute.quantize), late)
        stacks = blocks_of(params, order)
        if schedule is None:
            x_BTD, caches, routing = run_layers(
                stacks, x_BTD, shared, order, config, compute, caches
            )
        else:
            assert isinstance(stacks, dict)  # only inference takes the blocks apart
            x_BTD, routing = run_stages(stacks, x_BTD, shared, order, config, compute, schedule)
        x_BTD = ends.final_norm(x_BTD)
        if config.logit_multiplier != 1:  # here, so that every loss has it
            x_BTD *= jnp.asarray(config.logit_multiplier, dtype)
        return constrain(x_BTD, "ends_batch", "stream_length", "act_embed"), caches, routing

    def logits(self, x: jax.Array, params: Params, config: ModelConfig) -> jax.Array:
        """float32 logits (…, V) of hidden states (…, D), soft-capped if `logit_softcap` is set."""
        matrix, bias_V = self.unembedding(params, config), params.get("unembed_bias")
        return project(x, matrix, config.logit_softcap, bias_V)


DECODER = Decoder()


@functools.cache
def _layout(config: ModelConfig, block: MakeModule, expert_block: MakeModule) -> Layout:
    """The blocks in order: which have experts, and which attend to a window only."""
    some = any(config.moe_layers)
    layers = []
    masks = zip(config.windows, config.rotations, strict=True)
    for experts, (window, rotation) in zip(config.moe_layers, masks, strict=True):
        stack, mask = "blocks" if experts == some else "dense_blocks", Mask(True, window, rotation)
        layers.append(Layer(stack, expert_block if experts else block, mask))
    period = config.layer_period
    dense, every = (config.moe.dense_layers, config.moe.every) if config.moe else (0, 1)
    periods = (0, dense, period), (dense, len(layers), math.lcm(period, every))
    return Layout(tuple(layers), periods)
