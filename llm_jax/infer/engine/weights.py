"""The parameters as the engine reads them at each step: every layer apart, in the fastest form."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding

from llm_jax.config import ComputeConfig, ModelConfig, RecurrentConfig, UserError, layers_of
from llm_jax.infer.decoder import Params, prepared
from llm_jax.infer.engine.settings import Weights
from llm_jax.models.common.family import separate
from llm_jax.models.common.int8 import in_int8
from llm_jax.models.common.parameter import Spec
from llm_jax.models.protocol import model_of
from llm_jax.parallel.mesh import parameter_sharding
from llm_jax.parallel.platform import platform

Model = ModelConfig | RecurrentConfig


def cache_dtype(compute: ComputeConfig) -> str:
    """The dtype of keys and values: that of the run, but on a CPU float32. One query per head is
    too few rows for XLA's products of bfloat16 there (`models.common.layers.FEW`)."""
    return "float32" if platform() == "cpu" else compute.dtype


def engine_params(
    params: Params,
    model: Model,
    compute: ComputeConfig,
    mesh: Mesh | None,
    weights: Weights = "run",
) -> Params:
    """The parameters that the programs take, on the devices of `mesh` if there is one.

    Args:
      params: tree of the family's `init`.
      compute: of the run.
      weights: see `EngineSettings`.
    """
    family = model_of(model)
    rounded = prepared(params, model, compute)
    apart = separate(rounded, family.layout(model))
    specs = separate_specs(model)
    if layers_of(model).tie_embeddings:
        # The products with an embedding table that is not transposed are faster.
        apart["unembed"] = apart["embed"]["tokens"].T
        specs["unembed"] = Spec(specs["embed"]["tokens"].axes[::-1], "table")
    if weights == "int8":
        apart, specs = in_int8(apart, specs)
    if mesh is None:
        return apart
    if mesh.shape["pipeline"] > 1:
        raise UserError(
            f"The mesh has {mesh.shape['pipeline']} pipeline stages: text is made without them, "
            "so set parallel.pipeline to 1."
        )

    def placed(path: Any, leaf: jax.Array, spec: Spec) -> NamedSharding:
        return parameter_sharding(mesh, jax.tree_util.keystr(path), leaf.shape, spec.axes)

    return jax.device_put(apart, jax.tree_util.tree_map_with_path(placed, apart, specs))


def separate_specs(model: Model) -> Params:
    """The tree of `engine_params` of untied embeddings, with a `Spec` in place of each array."""
    family = model_of(model)
    layout, specs = family.layout(model), family.specs(model)
    stacks = layout.stacks
    one = {
        name: jax.tree.map(
            lambda spec: Spec(spec.axes[1:], spec.role),
            specs[name],
            is_leaf=lambda leaf: isinstance(leaf, Spec),
        )
        for name in stacks
    }
    beside = {name: leaf for name, leaf in specs.items() if name not in stacks}
    return beside | {"layers": tuple(one[layer.stack] for layer in layout.layers)}


def untied(model: Model) -> Model:
    """`model` as `engine_params` has it: with an output matrix of its own."""
    if isinstance(model, RecurrentConfig | ModelConfig) and model.tie_embeddings:
        return dataclasses.replace(model, tie_embeddings=False)
    return model
