"""The engine's programs for devices that need not be there, ready to be compiled."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental.layout import Format
from jax.sharding import Sharding

from llm_jax.infer.engine import cache as caches
from llm_jax.infer.engine import tpu_layout
from llm_jax.infer.engine.arrays import Decoding, no_stops
from llm_jax.infer.engine.programs import Programs, Shapes
from llm_jax.infer.engine.weights import cache_dtype, engine_params, separate_specs
from llm_jax.infer.row_sampling import stack_rows
from llm_jax.infer.sampling import GREEDY
from llm_jax.models.protocol import parameter_shapes
from llm_jax.parallel.mesh import parameter_sharding, sharding


class Ahead(NamedTuple):
    """The programs, and the arrays that they take, as `jax.ShapeDtypeStruct`.

    Attributes:
      decode: steps of decoding for all slots.
      piece: the longer piece of one prompt.
    """

    decode: jax.stages.Lowered
    piece: jax.stages.Lowered
    params: Any
    cache: Any


def device_bytes(arrays: Any) -> int:
    """Bytes of a tree of `Ahead` on one device, before layouts pad them."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(arrays)
    )


def ahead(shapes: Shapes) -> Ahead:
    """The programs for the devices of `shapes.mesh`, such as those of a `preflight.topology`.

    Args:
      shapes: of a model with an output matrix of its own (`weights.untied`).
    """
    mesh, model, slots = shapes.mesh, shapes.model, shapes.slots
    assert mesh is not None
    with jax.set_mesh(mesh):
        programs = Programs(shapes)

        def placed(leaf: Any, where: Sharding | Format) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where)

        def parameter(leaf: Any, spec: Any) -> jax.ShapeDtypeStruct:
            where = parameter_sharding(mesh, "", leaf.shape, spec.axes)
            return placed(leaf, tpu_layout.as_read(where, spec))

        made = jax.eval_shape(
            lambda params: engine_params(params, model, shapes.compute, None),
            parameter_shapes(model),
        )
        params = jax.tree.map(parameter, made, separate_specs(model))
        empty = jax.eval_shape(
            lambda: caches.empty_cache(
                model, slots, shapes.max_len, shapes.chunk, cache_dtype(shapes.compute)
            )
        )
        cache = jax.tree.map(
            lambda leaf: placed(leaf, sharding(mesh, caches.stored_axes(leaf.shape))), empty
        )
        token, position, left, done = np.zeros((4, slots), np.int32)
        seeds, rows = np.zeros(slots, np.uint32), stack_rows([GREEDY] * slots)
        state = Decoding(token, position, left, done, seeds, rows, no_stops(slots))
        decode = programs.decode.lower(
            params, cache, state, None, np.int32(1), np.bool_(False), kind="greedy"
        )
        tokens, one = np.zeros((1, shapes.chunk), np.int32), np.zeros(1, np.int32)
        piece = programs.prefill.lower(
            params, cache, tokens, one, one, one, one, tokens, scored=False
        )
        return Ahead(decode, piece, params, cache)
