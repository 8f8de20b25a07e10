"""The parameters as the engine reads them at each step: every layer apart, in the fastest form."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, Sharding, SingleDeviceSharding

from llm_jax.config import ComputeConfig, ModelConfig, RecurrentConfig, UserError, layers_of
from llm_jax.infer.decoder import Params, require_generates
from llm_jax.infer.engine.settings import Weights
from llm_jax.infer.engine.tpu_layout import as_read
from llm_jax.models.common.family import SEPARATE
from llm_jax.models.common.int8 import in_int8, takes_int8
from llm_jax.models.common.parameter import Spec
from llm_jax.models.protocol import model_of
from llm_jax.parallel.mesh import parameter_sharding
from llm_jax.parallel.platform import platform
from llm_jax.train.precision import NARROW

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
    *,
    frees: bool = False,
) -> Params:
    """The parameters that the programs take, on the devices of `mesh` if there is one. What is in
    this host's memory and needs no other dtype is not copied.

    Args:
      params: tree of the family's `init`.
      compute: of the run.
      weights: see `EngineSettings`.
      frees: each leaf of `params` is taken out of the tree when its own are made, so that memory
        holds about one copy and one leaf.
    """
    require_generates(model)
    if mesh is not None and mesh.shape["pipeline"] > 1:
        raise UserError(
            f"The mesh has {mesh.shape['pipeline']} pipeline stages: text is made without them, "
            "so set parallel.pipeline to 1."
        )
    family, form = model_of(model), _Form(compute.dtype, mesh, weights)
    layout = family.layout(model)
    stacks, layers = layout.stacks, tuple[Params, ...]({} for _ in layout.layers)
    apart: Params = {SEPARATE: layers}
    for path, spec in jax.tree_util.tree_leaves_with_path(family.specs(model), is_leaf=_is_spec):
        keys = [entry.key for entry in path]
        leaf, device = _in_memory(_taken(params, keys, frees))
        if keys[0] in stacks:
            one = Spec(spec.axes[1:], spec.role)
            for row, number in enumerate(stacks[keys[0]]):
                form.put(leaf[row], one, device, layers[number], keys[1:])
            continue
        form.put(leaf, spec, device, apart, keys)
        if layers_of(model).tie_embeddings and keys == ["embed", "tokens"]:
            # The products with an embedding table that is not transposed are faster.
            unembed = Spec(spec.axes[::-1], "table")
            form.put(jnp.asarray(leaf).T, unembed, device, apart, ["unembed"])
    return apart


def _taken(params: Params, keys: list[str], frees: bool) -> Any:
    *parents, last = keys
    for key in parents:
        params = params[key]
    return params.pop(last) if frees else params[last]


def _in_memory(leaf: Any) -> tuple[Any, Any]:
    """A leaf, and its device if it has one. What a CPU has is seen by NumPy, without a copy: slices
    of it are not programs, which each start would compile."""
    if isinstance(leaf, jax.core.Tracer) or not isinstance(leaf, jax.Array):
        return leaf, None
    if len(leaf.sharding.device_set) > 1:
        return leaf, None
    device: Any = next(iter(leaf.sharding.device_set))
    return (np.asarray(leaf) if device.platform == "cpu" else leaf), device


@dataclass(frozen=True)
class _Form:
    """What becomes of the leaves; see `engine_params`."""

    dtype: str
    mesh: Mesh | None
    weights: Weights

    def put(self, leaf: Any, spec: Spec, device: Any, tree: Params, keys: list[str]) -> None:
        """Puts a leaf into its place in `tree`, in its dtype and on its devices."""
        *parents, last = keys
        for key in parents:
            tree = tree.setdefault(key, {})
        if spec.role in NARROW:
            leaf = leaf.astype(jnp.dtype(self.dtype), copy=False)
        made: Any = leaf
        specs: Any = spec
        if self.weights == "int8" and takes_int8(keys[0], spec):
            made, specs = in_int8(jnp.asarray(leaf), spec)
        tree[last] = self._placed(made, specs, device, "/".join(keys))

    def _placed(self, made: Any, specs: Any, device: Any, name: str) -> Any:
        mesh, on_tpu = self.mesh, platform() == "tpu"
        if mesh is None and (isinstance(made, jax.core.Tracer) or not on_tpu):
            return jax.device_put(made, device)

        def where(leaf: Any, spec: Spec) -> Sharding:
            if mesh is None:
                return SingleDeviceSharding(device or jax.local_devices()[0])
            return parameter_sharding(mesh, name, leaf.shape, spec.axes)

        made = jax.device_put(made, jax.tree.map(where, made, specs))
        if not on_tpu:
            return made
        # Only now: what is not on its devices yet would be whole on each of them for a while.
        ordered = jax.tree.map(lambda leaf, spec: as_read(leaf.sharding, spec), made, specs)
        return jax.device_put(made, ordered)


def separate_specs(model: Model) -> Params:
    """The tree of `engine_params` of untied embeddings, with a `Spec` in place of each array."""
    family = model_of(model)
    layout, specs = family.layout(model), family.specs(model)
    stacks = layout.stacks
    one = {
        name: jax.tree.map(
            lambda spec: Spec(spec.axes[1:], spec.role),
            specs[name],
            is_leaf=_is_spec,
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


def _is_spec(leaf: Any) -> bool:
    return isinstance(leaf, Spec)
