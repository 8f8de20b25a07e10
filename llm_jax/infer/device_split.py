"""How the verbs that make text split a model over the devices of this process.

`tensor` devices share each matrix, as in training (`parallel/mesh.py`): heads, the MLP's width and
the vocabulary are divided, norms, routers and the cache of latent attention are on each of them.
Groups of as many devices divide the engine's slots (`data`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax
from jax.sharding import Mesh

from llm_jax.config import (
    ModelConfig,
    ParallelConfig,
    RecurrentConfig,
    RunConfig,
    UserError,
    generative_of,
)
from llm_jax.config.wording import counted
from llm_jax.infer.engine.cache import empty_cache
from llm_jax.infer.engine.settings import EngineSettings
from llm_jax.infer.engine.weights import cache_dtype
from llm_jax.models.protocol import model_of, parameter_shapes
from llm_jax.parallel.check import tensor_sizes
from llm_jax.parallel.mesh import make_mesh, mesh_axes, parameter_sharding

FULL = 0.9
"""Part of a device's memory that weights and cache may take; the rest is for what is computed."""


@dataclass(frozen=True)
class Split:
    """What is known of an engine before its model is read.

    Attributes:
      tensor: devices that share each matrix. None: the fewest with which the float32 weights, those
        of the engine and its cache fit into 0.9 of the memory of each device, or as many as can be
        if none do; where a device does not say how much it has, as a CPU, one device does all.
      slots: of the engine.
      max_len: of the engine; None: the model's context.
    """

    tensor: int | None = None
    slots: int = EngineSettings.slots
    max_len: int | None = None

    def mesh(self, config: RunConfig) -> Mesh | None:
        """The devices of this process as a mesh for the run's model; None: one is used.

        There are as many groups as there are devices for and as divide the slots.

        Raises:
          UserError: there are fewer devices than `tensor`, it does not divide a size of the model,
            or the model does not continue texts.
        """
        devices = jax.local_devices()
        return self.over(devices, _memory(devices), config)

    def over(self, devices: list[Any], limit: int | None, config: RunConfig) -> Mesh | None:
        """As `mesh`, over some of `devices`, each of which has `limit` bytes of memory."""
        if self.tensor is None:
            if len(devices) == 1 or limit is None or not _generates(config):
                return None
            tensor = self._fewest(config, len(devices), limit)
        else:
            generative_of(config.model, "--tensor")
            tensor = _checked(config, self.tensor, len(devices))
        data = self._groups(len(devices) // tensor)
        if tensor * data == 1:
            return None
        return make_mesh(ParallelConfig(data=data, tensor=tensor), devices[: tensor * data])

    def places(self, config: RunConfig) -> Any:
        """The sharding of each parameter on `mesh`, for `load_run`; None: one device is used.

        Raises as `mesh` does.
        """
        mesh = self.mesh(config)
        if mesh is None:
            return None

        def place(path: Any, leaf: Any, spec: Any) -> Any:
            return parameter_sharding(mesh, jax.tree_util.keystr(path), leaf.shape, spec.axes)

        specs = model_of(config.model).specs(config.model)
        return jax.tree_util.tree_map_with_path(place, parameter_shapes(config.model), specs)

    def _groups(self, most: int) -> int:
        return max(n for n in range(1, most + 1) if self.slots % n == 0)

    def _fewest(self, config: RunConfig, devices: int, limit: int) -> int:
        able = _able(config, devices)
        for tensor in able:
            if self._bytes(config, tensor, self._groups(devices // tensor)) <= FULL * limit:
                return tensor
        return able[-1]

    def _bytes(self, config: RunConfig, tensor: int, groups: int) -> int:
        """Bytes on a device: the weights in float32 and as the engine has them, and the cache."""
        model = generative_of(config.model, "--tensor")
        dtype, kept = config.compute.dtype, cache_dtype(config.compute)
        shapes = parameter_shapes(model)
        specs = jax.tree.leaves(
            model_of(model).specs(model), is_leaf=lambda leaf: hasattr(leaf, "axes")
        )
        total = 0
        for leaf, spec in zip(jax.tree.leaves(shapes), specs, strict=True):
            split = any("tensor" in mesh_axes(axis) for axis in spec.axes)
            total += leaf.size * (4 + jax.numpy.dtype(dtype).itemsize) // (tensor if split else 1)
        length = self.max_len or model.max_seq_len
        chunk = min(EngineSettings.prefill_chunk, length)
        cache = jax.eval_shape(lambda: empty_cache(model, self.slots, length, chunk, kept))
        by_heads = isinstance(model, ModelConfig) and model.latent is None
        for leaf in jax.tree.leaves(cache):
            split = by_heads and leaf.ndim == 4
            total += leaf.size * leaf.dtype.itemsize // (groups * (tensor if split else 1))
        return total


def described(mesh: Mesh) -> str:
    """The split in words."""
    data, tensor = mesh.shape["data"], mesh.shape["tensor"]
    there = len(jax.local_devices())
    groups = "" if data == 1 else f", and {data} such groups divide the texts"
    return f"{counted(tensor, 'device')} of {there} share each matrix{groups}"


def sizes(mesh: Mesh) -> dict[str, int]:
    """The split as JSON has it."""
    return {axis: mesh.shape[axis] for axis in ("data", "tensor")}


def _generates(config: RunConfig) -> bool:
    try:
        generative_of(config.model, "--tensor")
    except UserError:
        return False
    return True


def _memory(devices: list[jax.Device]) -> int | None:
    """Bytes of the smallest device; None if one does not say it."""
    stats = [device.memory_stats() or {} for device in devices]
    limits = [one["bytes_limit"] for one in stats if "bytes_limit" in one]
    return min(limits) if len(limits) == len(devices) else None


def _checked(config: RunConfig, tensor: int, devices: int) -> int:
    if tensor > devices:
        raise UserError(
            f"--tensor is {tensor}, but this process has {counted(devices, 'device')}: give "
            f"{devices} or fewer."
        )
    if tensor not in (able := _able(config, devices)):
        wrong = [f"{k} ({v})" for k, v in _sizes(config).items() if v % tensor]
        raise UserError(
            f"--tensor is {tensor}, which does not divide {', '.join(wrong)}: no two devices of a "
            "group hold the same head, key-value head, or part of the MLP or the vocabulary, so "
            f"give {' or '.join(map(str, able))}."
        )
    return tensor


def _able(config: RunConfig, devices: int) -> list[int]:
    """Values of `tensor` that divide the model, smallest first."""
    common = math.gcd(*_sizes(config).values())
    return [n for n in range(1, devices + 1) if common % n == 0]


def _sizes(config: RunConfig) -> dict[str, int]:
    model = config.model
    if isinstance(model, RecurrentConfig):
        return {"model.d_model": model.d_model, "model.vocab_size": model.vocab_size}
    return tensor_sizes(config)
