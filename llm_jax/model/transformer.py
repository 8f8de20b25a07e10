"""The decoder-only Transformer over a plain nested dict of arrays.

    embed/tokens (V, D)   [embed/positions (P, D)]
    blocks/…              every leaf of `layers.Block`, stacked: leading axis L
    final_norm/scale (D,) [final_norm/bias]
    [unembed (D, V)]      absent where embeddings are tied

NNX appears only to declare modules and to merge them with their arrays; `jit`, `grad`, `scan` and
`checkpoint` are JAX's own.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from llm_jax.config import ComputeConfig, ModelConfig
from llm_jax.model.attention import Shape, block_size
from llm_jax.model.kernels import attention, attention_choice
from llm_jax.model.layers import Attend, Block, Cache, Norm, init_std, normal
from llm_jax.model.rope import rope_table
from llm_jax.parallel.mesh import GATHERED, constrain, gather_fsdp
from llm_jax.parallel.platform import platform

Params = dict[str, Any]

# What the forward pass keeps for the backward pass. Even "none" gathers weights a second time:
# kept, the gathered weights of all layers would be the whole model on every device.
REMAT_POLICIES = {
    "none": jax.checkpoint_policies.save_anything_except_these_names(GATHERED),
    "dots": jax.checkpoint_policies.save_only_these_names("dense"),
    "full": jax.checkpoint_policies.nothing_saveable,
}


class Ends(nnx.Module):
    """What stands before and after the blocks."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        V, D, std = config.vocab_size, config.d_model, init_std(config)
        embed = {"tokens": normal(rngs, (V, D), ("vocab", "embed"), std)}
        if config.positions == "learned":
            embed["positions"] = normal(rngs, (config.max_seq_len, D), ("position", "embed"), std)
        self.embed = nnx.Dict(embed)
        self.final_norm = Norm(config, D)
        if not config.tie_embeddings:
            self.unembed = normal(rngs, (D, V), ("embed", "vocab"), std)


def init(config: ModelConfig, key: jax.Array) -> Params:
    """Fresh float32 parameters. Use under `jax.eval_shape` for shapes, under `jax.jit` with
    `out_shardings` to create them already sharded."""
    ends_key, blocks_key = jax.random.split(key)
    layer_keys = jax.random.split(blocks_key, config.num_layers)
    params = _arrays(Ends(config, nnx.Rngs(params=ends_key)))
    params["blocks"] = jax.vmap(lambda k: _arrays(Block(config, nnx.Rngs(params=k))))(layer_keys)
    return params


def _arrays(module: nnx.Module) -> Params:
    return nnx.to_pure_dict(nnx.split(module)[1])


@functools.cache
def _declare(
    module: Callable[[ModelConfig, nnx.Rngs], nnx.Module], config: ModelConfig
) -> tuple[Any, Params]:
    """The graphdef of a module, and its tree of logical axes; no array is made."""
    found: list[Any] = []

    def make() -> None:
        found.extend(nnx.split(module(config, nnx.Rngs(params=0))))

    jax.eval_shape(make)
    graphdef, state = found
    is_param = lambda leaf: isinstance(leaf, nnx.Param)  # noqa: E731
    axes = jax.tree.map(lambda p: p.get_metadata()["logical"], state, is_leaf=is_param)
    return graphdef, nnx.to_pure_dict(axes)


def _is_axes(leaf: Any) -> bool:
    return isinstance(leaf, tuple)


def logical_axes(config: ModelConfig) -> Params:
    """The tree of `init` with the tuple of logical axis names in place of each array."""
    blocks = _declare(Block, config)[1]
    stacked = jax.tree.map(lambda names: ("layers", *names), blocks, is_leaf=_is_axes)
    return {**_declare(Ends, config)[1], "blocks": stacked}


def packed_attend(config: ModelConfig, compute: ComputeConfig, segments_BT: jax.Array) -> Attend:
    """Causal attention within the documents of packed sequences, for training and evaluation.

    Args:
      segments_BT: which document each position belongs to, int32; equal numbers see each other.
    """
    T = segments_BT.shape[1]
    scale = config.attn_scale or 1 / math.sqrt(config.head_dim)
    kind, _ = attention_choice(config, compute, T, platform())

    def attend(
        q_BTNH: jax.Array, k_BTKH: jax.Array, v_BTKH: jax.Array, window: int | None, cache: Cache
    ) -> tuple[jax.Array, Cache]:
        shape = Shape(scale, config.attn_softcap, window, block_size(T))
        return attention(kind, q_BTNH, k_BTKH, v_BTKH, segments_BT, shape), cache

    return attend


def hidden(
    params: Params,
    tokens_BT: jax.Array,
    positions_BT: jax.Array,
    attend: Attend,
    config: ModelConfig,
    compute: ComputeConfig,
    caches: Cache = None,
) -> tuple[jax.Array, Cache]:
    """Final hidden states, after the last norm.

    Args:
      params: tree of `init`.
      tokens_BT: int32 token ids.
      positions_BT: int32 position of each token in its document.
      attend: what attention sees; `packed_attend` in training, a KV cache in `infer/`.
      caches: tree whose leaves have leading axis L, handed to `attend` layer by layer.

    Returns:
      x_BTD in the compute dtype, and the caches as `attend` left them.
    """
    dtype = jnp.dtype(compute.dtype)
    table_VD = gather_fsdp(params["embed"]["tokens"], ("vocab", "embed"))
    x_BTD = table_VD.astype(dtype)[tokens_BT]
    if config.positions == "learned":
        x_BTD += params["embed"]["positions"].astype(dtype)[positions_BT]
    if config.scale_embeddings:
        x_BTD *= jnp.asarray(math.sqrt(config.d_model), dtype)
    x_BTD = constrain(x_BTD, "batch", "stream_length", "act_embed")
    rope = rope_table(config, positions_BT) if config.positions == "rope" else None
    x_BTD, caches = _blocks(params["blocks"], x_BTD, rope, attend, config, compute, caches)
    ends = {name: leaf for name, leaf in params.items() if name != "blocks"}
    final_norm = nnx.merge(_declare(Ends, config)[0], ends).final_norm
    return constrain(final_norm(x_BTD), "ends_batch", "length", "act_embed"), caches


def _blocks(
    blocks: Params,
    x_BTD: jax.Array,
    rope: tuple[jax.Array, jax.Array] | None,
    attend: Attend,
    config: ModelConfig,
    compute: ComputeConfig,
    caches: Cache,
) -> tuple[jax.Array, Cache]:
    """All blocks in order: a scan over groups of layers, or every layer written out.

    A group is one period of the window pattern, so that each layer's window is static in the
    compiled body; layers that fill no whole period are written out after the scan.
    """
    graphdef, axes = _declare(Block, config)
    L, windows = config.num_layers, config.windows
    period = len(config.window_pattern) if config.sliding_window else 1

    def layer(x_BTD: jax.Array, arrays: Params, cache: Cache, window: int | None) -> Any:
        arrays = jax.tree.map(gather_fsdp, arrays, axes)
        return nnx.merge(graphdef, arrays)(x_BTD, rope, attend, window, cache)

    policy = REMAT_POLICIES[compute.remat]
    layer = jax.checkpoint(layer, policy=policy, static_argnums=(3,), prevent_cse=False)
    scanned = L // period * period if compute.scan_layers else 0
    parts: list[Cache] = []
    if scanned:

        def group(x_BTD: jax.Array, xs: tuple[Params, Cache]) -> tuple[jax.Array, Cache]:
            made = []
            for i in range(period):
                arrays, cache = jax.tree.map(lambda leaf, i=i: leaf[i], xs)
                x_BTD, cache = layer(x_BTD, arrays, cache, windows[i])
                made.append(cache)
            return x_BTD, _stack(made)

        fold = lambda leaf: leaf[:scanned].reshape(-1, period, *leaf.shape[1:])  # noqa: E731
        x_BTD, part = jax.lax.scan(group, x_BTD, jax.tree.map(fold, (blocks, caches)))
        parts.append(jax.tree.map(lambda leaf: leaf.reshape(scanned, *leaf.shape[2:]), part))
    for i in range(scanned, L):
        arrays, cache = jax.tree.map(lambda leaf, i=i: leaf[i], (blocks, caches))
        x_BTD, cache = layer(x_BTD, arrays, cache, windows[i])
        parts.append(_stack([cache]))
    return x_BTD, jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)


def _stack(caches: list[Cache]) -> Cache:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *caches)


def unembedding(params: Params, config: ModelConfig) -> jax.Array:
    """The matrix from hidden states to logits, (D, V) float32, gathered over fsdp."""
    if config.tie_embeddings:
        return gather_fsdp(params["embed"]["tokens"], ("vocab", "embed")).T
    return gather_fsdp(params["unembed"], ("embed", "vocab"))


def logits(x: jax.Array, unembed_DV: jax.Array, config: ModelConfig) -> jax.Array:
    """float32 logits (…, V) of hidden states (…, D), soft-capped if the architecture says so."""
    out = jnp.einsum(
        "...D,DV->...V", x, unembed_DV.astype(x.dtype), preferred_element_type=jnp.float32
    )
    cap = config.logit_softcap
    return out if cap is None else cap * jnp.tanh(out / cap)
