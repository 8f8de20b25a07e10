"""All blocks in order: stacked parameters, scans over groups of layers, rematerialisation."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from llm_jax.attention.mask import Cache, Mask
from llm_jax.config import ComputeConfig
from llm_jax.models.common.int8 import as_floats
from llm_jax.models.common.moe import Routing
from llm_jax.models.common.parameter import Spec
from llm_jax.parallel.mesh import GATHERED, GATHERED_AXES, axes_of, gather_fsdp
from llm_jax.parallel.pipeline import Schedule, pipeline

Params = dict[str, Any]
MakeModule = Callable[[Any, nnx.Rngs], nnx.Module]
"""The constructor of a module from the config of its architecture."""


class Layer(NamedTuple):
    """One block among all those of a model."""

    stack: str
    """Name, in the parameter tree, of the stack that holds its arrays."""
    make: MakeModule
    mask: Mask


class Layout(NamedTuple):
    """The blocks of a model in order."""

    layers: tuple[Layer, ...]
    periods: tuple[tuple[int, int, int], ...]
    """(start, stop, period): from `start` to `stop`, layers repeat every `period`. Each repetition
    is one turn of a compiled loop."""

    @property
    def stacks(self) -> dict[str, list[int]]:
        """Name of each stack → the numbers of its layers, in order."""
        found: dict[str, list[int]] = {}
        for number, layer in enumerate(self.layers):
            found.setdefault(layer.stack, []).append(number)
        return found

    def stage(self, count: int) -> Layout:
        """The first of `count` equal parts, which all must be alike."""
        size = len(self.layers) // count
        cut = [(start, min(stop, size), period) for start, stop, period in self.periods]
        return Layout(self.layers[:size], tuple(part for part in cut if part[0] < part[1]))


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
def declare(module: MakeModule, config: Any) -> tuple[Any, Params]:
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


def init_stacks(layout: Layout, config: Any, layer_keys: jax.Array) -> Params:
    """New float32 parameters of all blocks: name of a stack → its arrays, leading axis: its layers.

    Args:
      layer_keys: one key per layer.
    """
    params = {}
    for stack, numbers in layout.stacks.items():
        make = layout.layers[numbers[0]].make

        def init_one(key: jax.Array, make: MakeModule = make) -> Params:
            return arrays_of(make(config, nnx.Rngs(params=key)))

        params[stack] = jax.vmap(init_one)(layer_keys[jnp.array(numbers)])
    return params


def stack_specs(layout: Layout, config: Any) -> Params:
    """The tree of `init_stacks`, with a `Spec` in place of each array."""
    tree = {}
    for stack, numbers in layout.stacks.items():
        specs = declare(layout.layers[numbers[0]].make, config)[1]
        tree[stack] = jax.tree.map(lambda one: Spec(("layers", *one.axes), one.role), specs)
    return tree


def run_layers(
    stacks: dict[str, Params] | tuple[Params, ...],
    x_BTD: jax.Array,
    shared: Any,
    layout: Layout,
    config: Any,
    compute: ComputeConfig,
    caches: Cache,
) -> tuple[jax.Array, Cache, Routing | None]:
    """Runs all blocks in order: scans over groups of layers, or writes every layer out.

    Within a group, each layer's mask and kind are static in the compiled body.

    Args:
      stacks: name of a stack → its parameters, leading axis: its layers; or the parameters of each
        layer, which are then written out.
      shared: what each block gets beside the stream, such as `Shared`; a pytree whose leaves have
        the batch as leading axis.
      config: what the blocks are made from.
      caches: leaves with leading axis L, or None; with the parameters of each layer, a tree for
        each layer. Nothing is sliced or stacked then: a cache can be changed in place.

    Returns:
      x_BTD after the last block, the updated caches, and the `Routing` of the layers with experts,
      stacked (None without experts).
    """
    stack_of = [layer.stack for layer in layout.layers]

    def layer(x_BTD: jax.Array, arrays: Params, cache: Cache, kind: Layer) -> Any:
        if compute.remat == "offload":
            x_BTD = checkpoint_name(x_BTD, BLOCK_INPUT)
        graphdef, specs = declare(kind.make, config)
        arrays = jax.tree.map(lambda leaf, spec: gather_fsdp(leaf, spec.axes), arrays, specs)
        return nnx.merge(graphdef, arrays)(x_BTD, shared, kind.mask, cache)

    # With nothing to gather and nothing to recompute, `checkpoint` would only copy what it saves.
    if compute.remat != "none" or axes_of(*GATHERED_AXES):
        policy = REMAT_POLICIES[compute.remat]
        layer = jax.checkpoint(layer, policy=policy, static_argnums=(3,), prevent_cse=False)
    if not compute.scan_layers or isinstance(stacks, tuple):
        layer = jax.jit(layer, static_argnums=3)  # traced once for each kind, not for each layer
    cache_parts: list[Cache] = []
    routing_parts: list[Routing] = []
    if isinstance(stacks, tuple):
        each = (None,) * len(stacks) if caches is None else caches
        for arrays, cache, kind in zip(stacks, each, layout.layers, strict=True):
            arrays = as_floats(arrays, compute.dtype, x_BTD)
            x_BTD, cache, routing = layer(x_BTD, arrays, cache, kind)
            cache_parts.append(cache)
            routing_parts += [] if routing is None else [routing]
        return x_BTD, tuple(cache_parts), _stack(routing_parts) if routing_parts else None
    for span in _spans(layout, compute.scan_layers):

        def group(
            x_BTD: jax.Array, xs: tuple[dict[str, Params], Cache], span: _Span = span
        ) -> tuple[jax.Array, tuple[Cache, Routing | None]]:
            (stacks, caches), used = xs, dict.fromkeys(xs[0], 0)
            made, routings = [], []
            for i in range(span.period):
                name = stack_of[span.first + i]
                arrays = jax.tree.map(lambda leaf, j=used[name]: leaf[j], stacks[name])
                cache = jax.tree.map(lambda leaf, i=i: leaf[i], caches)
                x_BTD, cache, routing = layer(x_BTD, arrays, cache, layout.layers[span.first + i])
                used[name] += 1
                made.append(cache)
                routings += [] if routing is None else [routing]
            return x_BTD, (_stack(made), _stack(routings) if routings else None)

        xs = _grouped(_slices(stacks, caches, span, stack_of), span.groups)
        if span.groups > 1:
            x_BTD, made = jax.lax.scan(group, x_BTD, xs)
            cache, routing = _ungrouped(made)
        else:
            x_BTD, (cache, routing) = group(x_BTD, jax.tree.map(lambda leaf: leaf[0], xs))
        cache_parts.append(cache)
        routing_parts += [] if routing is None else [routing]
    return x_BTD, _join(cache_parts), _join(routing_parts) if routing_parts else None


def run_stages(
    stacks: dict[str, Params],
    x_BTD: jax.Array,
    shared: Any,
    layout: Layout,
    config: Any,
    compute: ComputeConfig,
    schedule: Schedule,
) -> tuple[jax.Array, Routing | None]:
    """Runs all blocks as a pipeline; returns x_BTD and the stacked `Routing`, as `run_layers` does.

    Args:
      shared: as in `run_layers`.
    """
    part = layout.stage(schedule.stages * schedule.rounds)

    def stage(stacks: Any, x_bTD: jax.Array, shared: Any) -> tuple[jax.Array, Routing | None]:
        x_bTD, _, routing = run_layers(stacks, x_bTD, shared, part, config, compute, None)
        return x_bTD, routing

    x_BTD, routing = pipeline(stage, stacks, x_BTD, shared, schedule)
    return x_BTD, _ungrouped(routing)


class _Span(NamedTuple):
    """`groups` x `period` consecutive layers, whose kinds and windows repeat every `period`."""

    first: int
    period: int
    groups: int


def _spans(layout: Layout, scan: bool) -> list[_Span]:
    """The layers cut into spans. Layers that do not fill a whole period are spans of one."""
    spans = []
    for start, stop, period in layout.periods:
        groups = (stop - start) // period if scan else 0
        if groups:
            spans.append(_Span(start, period, groups))
        spans += [_Span(i, 1, 1) for i in range(start + groups * period, stop)]
    return spans


def _grouped(tree: Any, groups: int) -> Any:
    return jax.tree.map(lambda leaf: leaf.reshape(groups, -1, *leaf.shape[1:]), tree)


def _ungrouped(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), tree)


def _slices(
    stacks: dict[str, Params], caches: Cache, span: _Span, stack_of: list[str]
) -> tuple[dict[str, Params], Cache]:
    """The part of the stacks and of the caches that belongs to the span."""
    last = span.first + span.period * span.groups
    inside, parts = stack_of[span.first : last], {}
    for name in dict.fromkeys(inside):
        before, count = stack_of[: span.first].count(name), inside.count(name)
        parts[name] = jax.tree.map(lambda leaf, a=before, b=before + count: leaf[a:b], stacks[name])
    return parts, jax.tree.map(lambda leaf: leaf[span.first : last], caches)


def _stack(trees: list[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def _join(trees: list[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *trees)
