"""All blocks in order: stacked parameters, scans over groups of layers, rematerialisation."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from llm_jax.config import ComputeConfig, ModelConfig
from llm_jax.model.block import Block, expert_block
from llm_jax.model.layers import Attend, Cache
from llm_jax.model.moe import Routing
from llm_jax.parallel.mesh import GATHERED, GATHERED_AXES, axes_of, gather_fsdp
from llm_jax.parallel.pipeline import Schedule, pipeline

Params = dict[str, Any]

BLOCK_INPUT = "block_input"
"""Name of the arrays that `offload` moves to the host."""

# What the forward pass keeps for the backward pass. Even "none" gathers weights again: if they were
# kept, every device would hold the whole model.
REMAT_POLICIES = {
    "none": jax.checkpoint_policies.save_anything_except_these_names(GATHERED),
    "dots": jax.checkpoint_policies.save_only_these_names("dense"),
    "full": jax.checkpoint_policies.nothing_saveable,
    "offload": jax.checkpoint_policies.save_and_offload_only_these_names(
        names_which_can_be_saved=[],
        names_which_can_be_offloaded=[BLOCK_INPUT],
        offload_src="device",
        offload_dst="pinned_host",
    ),
}


def arrays_of(module: nnx.Module) -> Params:
    """The parameters of a module as a nested dict of arrays."""
    return nnx.to_pure_dict(nnx.split(module)[1])


@functools.cache
def declare(
    module: Callable[[ModelConfig, nnx.Rngs], nnx.Module], config: ModelConfig
) -> tuple[Any, Params]:
    """The graphdef of a module, and its tree of `Spec`s. No array is created."""
    parts: list[Any] = []

    def make() -> None:
        parts.extend(nnx.split(module(config, nnx.Rngs(params=0))))

    jax.eval_shape(make)
    graphdef, state = parts
    specs = jax.tree.map(lambda p: p.get_metadata()["spec"], state, is_leaf=_is_param)
    return graphdef, nnx.to_pure_dict(specs)


def _is_param(leaf: Any) -> bool:
    return isinstance(leaf, nnx.Param)


def layer_stacks(config: ModelConfig) -> dict[str, list[int]]:
    """Name of each stack in the parameter tree → the numbers of its layers, in order."""
    experts = config.moe_layers
    stacks = {"blocks": [i for i, is_moe in enumerate(experts) if is_moe == any(experts)]}
    if any(experts) and not all(experts):
        stacks["dense_blocks"] = [i for i, is_moe in enumerate(experts) if not is_moe]
    return stacks


def block_of(stack: str, config: ModelConfig) -> Callable[[ModelConfig, nnx.Rngs], Block]:
    """The constructor of the blocks in `stack`."""
    return expert_block if stack == "blocks" and config.moe is not None else Block


def run_layers(
    stacks: dict[str, Params],
    x_BTD: jax.Array,
    rope: tuple[jax.Array, jax.Array] | None,
    attend: Attend,
    config: ModelConfig,
    compute: ComputeConfig,
    caches: Cache,
) -> tuple[jax.Array, Cache, Routing | None]:
    """Runs all blocks in order: scans over groups of layers, or writes every layer out.

    Within a group, each layer's window and kind are static in the compiled body.

    Args:
      stacks: name of a stack → its parameters, leading axis: its layers.
      rope: sin and cos, (B, T, H/2) float32 each; None for learned positions.
      caches: leaves with leading axis L, or None.

    Returns:
      x_BTD after the last block, the updated caches, and the `Routing` of the layers with experts,
      stacked (None without experts).
    """
    stack_of = {i: name for name, layers in layer_stacks(config).items() for i in layers}

    def layer(x_BTD: jax.Array, arrays: Params, cache: Cache, index: int) -> Any:
        if compute.remat == "offload":
            x_BTD = checkpoint_name(x_BTD, BLOCK_INPUT)
        graphdef, specs = declare(block_of(stack_of[index], config), config)
        arrays = jax.tree.map(lambda leaf, spec: gather_fsdp(leaf, spec.axes), arrays, specs)
        block = nnx.merge(graphdef, arrays)
        return block(x_BTD, rope, attend, config.windows[index], cache, compute.quantize)

    # With nothing to gather and nothing to recompute, `checkpoint` would only copy what it saves.
    if compute.remat != "none" or axes_of(*GATHERED_AXES):
        policy = REMAT_POLICIES[compute.remat]
        layer = jax.checkpoint(layer, policy=policy, static_argnums=(3,), prevent_cse=False)
    cache_parts: list[Cache] = []
    routing_parts: list[Routing] = []
    for span in _spans(config, compute.scan_layers):

        def group(
            x_BTD: jax.Array, xs: tuple[dict[str, Params], Cache], span: _Span = span
        ) -> tuple[jax.Array, tuple[Cache, Routing | None]]:
            (stacks, caches), used = xs, dict.fromkeys(xs[0], 0)
            made, routings = [], []
            for i in range(span.period):
                name = stack_of[span.first + i]
                arrays = jax.tree.map(lambda leaf, j=used[name]: leaf[j], stacks[name])
                cache = jax.tree.map(lambda leaf, i=i: leaf[i], caches)
                x_BTD, cache, routing = layer(x_BTD, arrays, cache, span.first + i)
                used[name] += 1
                made.append(cache)
                routings += [] if routing is None else [routing]
            return x_BTD, (_stack(made), _stack(routings) if routings else None)

        fold = lambda leaf, span=span: leaf.reshape(span.groups, -1, *leaf.shape[1:])  # noqa: E731
        unfold = lambda leaf: leaf.reshape(-1, *leaf.shape[2:])  # noqa: E731
        xs = jax.tree.map(fold, _slices(stacks, caches, span, stack_of))
        if span.groups > 1:
            x_BTD, made = jax.lax.scan(group, x_BTD, xs)
            cache, routing = jax.tree.map(unfold, made)
        else:
            x_BTD, (cache, routing) = group(x_BTD, jax.tree.map(lambda leaf: leaf[0], xs))
        cache_parts.append(cache)
        routing_parts += [] if routing is None else [routing]
    return x_BTD, _join(cache_parts), _join(routing_parts) if routing_parts else None


def run_stages(
    stacks: dict[str, Params],
    x_BTD: jax.Array,
    rope: tuple[jax.Array, jax.Array] | None,
    attend: Attend,
    config: ModelConfig,
    compute: ComputeConfig,
    schedule: Schedule,
) -> tuple[jax.Array, Routing | None]:
    """Runs all blocks as a pipeline; returns x_BTD and the stacked `Routing`, as `run_layers` does.

    Args:
      attend: a pytree whose leaves have the batch as leading axis.
    """
    groups = schedule.stages * schedule.rounds
    part = dataclasses.replace(config, num_layers=config.num_layers // groups)

    def stage(stacks: Any, x_bTD: jax.Array, along: Any) -> tuple[jax.Array, Routing | None]:
        rope, attend = along
        x_bTD, _, routing = run_layers(stacks, x_bTD, rope, attend, part, compute, None)
        return x_bTD, routing

    x_BTD, routing = pipeline(stage, stacks, x_BTD, (rope, attend), schedule)
    return x_BTD, jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), routing)


class _Span(NamedTuple):
    """`groups` x `period` consecutive layers, whose kinds and windows repeat every `period`."""

    first: int
    period: int
    groups: int


def _spans(config: ModelConfig, scan: bool) -> list[_Span]:
    """The layers cut into spans. Layers that do not fill a whole period are spans of one."""
    window_period = len(config.window_pattern) if config.sliding_window else 1
    dense, every = (config.moe.dense_layers, config.moe.every) if config.moe else (0, 1)
    spans = []
    for start, stop, period in (
        (0, dense, window_period),
        (dense, config.num_layers, math.lcm(window_period, every)),
    ):
        groups = (stop - start) // period if scan else 0
        if groups:
            spans.append(_Span(start, period, groups))
        spans += [_Span(i, 1, 1) for i in range(start + groups * period, stop)]
    return spans


def _slices(
    stacks: dict[str, Params], caches: Cache, span: _Span, stack_of: dict[int, str]
) -> tuple[dict[str, Params], Cache]:
    """The part of the stacks and of the caches that belongs to the span."""
    last = span.first + span.period * span.groups
    parts = {}
    for name in dict.fromkeys(stack_of[i] for i in range(span.first, last)):
        before = sum(stack_of[i] == name for i in range(span.first))
        count = sum(stack_of[i] == name for i in range(span.first, last))
        cut = lambda leaf, a=before, b=before + count: leaf[a:b]  # noqa: E731
        parts[name] = jax.tree.map(cut, stacks[name])
    return parts, jax.tree.map(lambda leaf: leaf[span.first : last], caches)


def _stack(trees: list[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def _join(trees: list[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *trees)
