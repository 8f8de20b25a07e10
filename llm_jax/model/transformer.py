"""The decoder-only Transformer over a plain nested dict of arrays.

    embed/tokens (V, D)   [embed/positions (P, D)]
    blocks/…              every leaf of `block.Block`, stacked: leading axis L
    [dense_blocks/…       the layers without experts, if other layers have experts]
    final_norm/scale (D,) [final_norm/bias]
    [unembed (D, V)]      absent if embeddings are tied

NNX is used only to declare modules and to merge them with their arrays. `jit`, `grad`, `scan` and
`checkpoint` are JAX's own.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from llm_jax.config import ComputeConfig, ModelConfig
from llm_jax.model.attention import Shape, block_size
from llm_jax.model.induction import induction_start
from llm_jax.model.kernels import GATHERED_SPLASH, attention, attention_choice, split_choice
from llm_jax.model.layers import Attend, Cache, Norm, init_std, normal
from llm_jax.model.moe import Routing
from llm_jax.model.parameter import Spec
from llm_jax.model.rope import rope_table
from llm_jax.model.splash import gathered_splash_attention
from llm_jax.model.stack import (
    arrays_of,
    block_of,
    declare,
    layer_stacks,
    run_layers,
    run_stages,
)
from llm_jax.parallel.context import Rule, context_attention
from llm_jax.parallel.mesh import axis_shards, constrain, gather_fsdp
from llm_jax.parallel.pipeline import Schedule
from llm_jax.parallel.platform import platform

Params = dict[str, Any]


class Ends(nnx.Module):
    """The layers before and after the blocks: embeddings, final norm and unembedding."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        V, D, std = config.vocab_size, config.d_model, init_std(config)
        embed = {"tokens": normal(rngs, (V, D), ("vocab", "embed"), std, "table")}
        if config.positions == "learned":
            shape, axes = (config.max_seq_len, D), ("position", "embed")
            embed["positions"] = normal(rngs, shape, axes, std, "positions")
        self.embed = nnx.Dict(embed)
        self.final_norm = Norm(config, D)
        if not config.tie_embeddings:
            self.unembed = normal(rngs, (D, V), ("embed", "vocab"), std, "table")


def init(config: ModelConfig, key: jax.Array) -> Params:
    """New float32 parameters, as a nested dict.

    Call it under `jax.eval_shape` for shapes only, or under `jax.jit` with `out_shardings` to
    create each array on its devices.
    """
    ends_key, blocks_key = jax.random.split(key)
    layer_keys = jax.random.split(blocks_key, config.num_layers)
    params = arrays_of(Ends(config, nnx.Rngs(params=ends_key)))
    for stack, layers in layer_stacks(config).items():
        make = block_of(stack, config)
        init_one = lambda k, make=make: arrays_of(make(config, nnx.Rngs(params=k)))  # noqa: E731
        params[stack] = jax.vmap(init_one)(layer_keys[jnp.array(layers)])
    if config.attention_init == "induction":
        blocks = params["blocks"]
        blocks["attn"] = induction_start(blocks["attn"], config)
    return params


def specs(config: ModelConfig) -> Params:
    """The tree of `init`, with a `Spec` in place of each array."""
    tree = dict(declare(Ends, config)[1])
    for stack in layer_stacks(config):
        blocks = declare(block_of(stack, config), config)[1]
        tree[stack] = jax.tree.map(lambda one: Spec(("layers", *one.axes), one.role), blocks)
    return tree


def logical_axes(config: ModelConfig) -> Params:
    """The tree of `init`, with a tuple of logical axis names in place of each array."""
    return jax.tree.map(lambda one: one.axes, specs(config))


def packed_attend(config: ModelConfig, compute: ComputeConfig, segments_BT: jax.Array) -> Attend:
    """Causal attention within the documents of packed sequences, for training and evaluation.

    Args:
      segments_BT: int32, the document of each position; equal numbers see each other.

    Raises:
      ConfigError: `compute.attention` names a kernel that cannot compute this model's attention.
    """
    T = segments_BT.shape[1]
    scale = config.attn_scale or 1 / math.sqrt(config.head_dim)
    kind, _ = attention_choice(config, compute, T, platform())

    def attend(
        segments_BT: jax.Array,
        q_BTNH: jax.Array,
        k_BTKH: jax.Array,
        v_BTKH: jax.Array,
        window: int | None,
        cache: Cache,
    ) -> tuple[jax.Array, Cache]:
        shape = Shape(scale, config.attn_softcap, window, block_size(T))
        return attention(kind, q_BTNH, k_BTKH, v_BTKH, segments_BT, shape), cache

    return jax.tree_util.Partial(attend, segments_BT)


def split_attend(
    config: ModelConfig, kind: Literal["ring", "gather"], segments_BT: jax.Array
) -> Attend:
    """`packed_attend` for sequences in `zigzag` order, whose length is split over the mesh.

    Args:
      kind: `parallel.context_kind`.
    """
    T = segments_BT.shape[1]
    scale = config.attn_scale or 1 / math.sqrt(config.head_dim)
    choice = split_choice(config, kind, T, axis_shards("context"), platform())

    def attend(
        segments_BT: jax.Array,
        q_BTNH: jax.Array,
        k_BTKH: jax.Array,
        v_BTKH: jax.Array,
        window: int | None,
        cache: Cache,
    ) -> tuple[jax.Array, Cache]:
        if choice.kind == GATHERED_SPLASH:
            shape = Shape(scale, config.attn_softcap, window, block_size(T))
            return gathered_splash_attention(q_BTNH, k_BTKH, v_BTKH, segments_BT, shape), cache
        rule = Rule(scale, config.attn_softcap, window, kind)
        return context_attention(q_BTNH, k_BTKH, v_BTKH, segments_BT, rule), cache

    return jax.tree_util.Partial(attend, segments_BT)


def hidden(
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
      x_BTD in the compute dtype, the updated caches, and the `Routing` of the layers with experts,
      stacked (None without experts).
    """
    dtype = jnp.dtype(compute.dtype)
    table_VD = gather_fsdp(params["embed"]["tokens"], ("vocab", "embed"))
    # This constraint makes the compiler reduce partial sums over the vocabulary's axis. With the
    # constraint of the stream alone, it would gather the whole table.
    x_BTD = constrain(table_VD.astype(dtype)[tokens_BT], "batch", "length", "act_embed")
    if config.positions == "learned":
        x_BTD += params["embed"]["positions"].astype(dtype)[positions_BT]
    if config.scale_embeddings:
        x_BTD *= jnp.asarray(math.sqrt(config.d_model), dtype)
    x_BTD = constrain(x_BTD, "batch", "stream_length", "act_embed")
    rope = rope_table(config, positions_BT) if config.positions == "rope" else None
    stacks = {name: params[name] for name in layer_stacks(config)}
    if schedule is None:
        x_BTD, caches, routing = run_layers(stacks, x_BTD, rope, attend, config, compute, caches)
    else:
        x_BTD, routing = run_stages(stacks, x_BTD, rope, attend, config, compute, schedule)
    ends = {name: leaf for name, leaf in params.items() if name not in stacks}
    final_norm = nnx.merge(declare(Ends, config)[0], ends).final_norm
    return constrain(final_norm(x_BTD), "ends_batch", "stream_length", "act_embed"), caches, routing


def unembedding(params: Params, config: ModelConfig) -> jax.Array:
    """The matrix from hidden states to logits, (D, V) in its stored dtype, gathered over fsdp."""
    if config.tie_embeddings:
        return gather_fsdp(params["embed"]["tokens"], ("vocab", "embed")).T
    return gather_fsdp(params["unembed"], ("embed", "vocab"))


def logits(x: jax.Array, unembed_DV: jax.Array, config: ModelConfig) -> jax.Array:
    """float32 logits (…, V) of hidden states (…, D), soft-capped if `logit_softcap` is set."""
    out = jnp.einsum(
        "...D,DV->...V", x, unembed_DV.astype(x.dtype), preferred_element_type=jnp.float32
    )
    cap = config.logit_softcap
    return out if cap is None else cap * jnp.tanh(out / cap)
