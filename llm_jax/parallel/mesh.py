"""The mesh of devices, and the ONE table that maps logical axes of arrays onto it.

Layers speak of logical axes ("embed", "heads" …); only this file says "fsdp" or "tensor". Notation
of "How to scale your model": W[D_X, F_Y] is a matrix whose rows are split over mesh axis X and
whose columns are split over Y.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from llm_jax.config import ParallelConfig, RunConfig, require

AXES = ("data", "fsdp", "tensor")
BATCH_AXES = ("data", "fsdp")

# Logical axis → mesh axes. `None` is "not split".
RULES: dict[str, str | tuple[str, ...] | None] = {
    # Activations: x[B_(data,fsdp), T, D], heads and ffn split over tensor inside a block.
    "batch": BATCH_AXES,
    "length": None,
    "act_embed": None,
    # Parameters: fsdp splits the model width, tensor the Megatron dimension.
    "vocab": "tensor",
    "embed": "fsdp",
    "heads": "tensor",
    "kv_heads": "tensor",
    "head_dim": None,
    "mlp": "tensor",
    "layers": None,
    "norm": None,
    "position": None,
}

Logical = tuple[str | None, ...]

GATHERED = "gathered"
"""Name of gathered weights for the remat policies."""


def make_mesh(parallel: ParallelConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The mesh of `devices` (all devices by default) with axes `AXES`.

    Axes are Auto, not Explicit: the compiler propagates shardings and constraints are hints with
    force (docs/adr/0001).

    Raises:
      ConfigError: the axis sizes do not multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    inner = parallel.fsdp * parallel.tensor
    count = len(devices)
    data = parallel.data if parallel.data != -1 else max(count // inner, 1)
    require(
        data * inner == count,
        f"parallel.data x fsdp x tensor is {data} x {parallel.fsdp} x {parallel.tensor} = "
        f"{data * inner}, but there are {count} devices: make the product {count}.",
    )
    shape = (data, parallel.fsdp, parallel.tensor)
    return jax.make_mesh(shape, AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=devices)


def check_divisible(config: RunConfig, mesh: Mesh) -> None:
    """Raises `ConfigError` where the mesh does not divide what it splits, naming both."""
    batch_shards = math.prod(mesh.shape[axis] for axis in BATCH_AXES)
    micro = config.data.batch_size // config.optim.accumulate
    require(
        micro % batch_shards == 0,
        f"data.batch_size / optim.accumulate is {micro} sequences, which the {batch_shards} batch "
        f"shards of the mesh (data x fsdp) do not divide: make it a multiple of {batch_shards}.",
    )
    model = config.model
    for name, axis in SPLIT_FIELDS:
        size, shards = getattr(model, name), mesh.shape[axis]
        require(
            size % shards == 0,
            f"model.{name} is {size}, which mesh axis {axis!r} of size {shards} does not divide: "
            f"change one of them.",
        )


# Which field of `ModelConfig` is split over which mesh axis by `RULES`.
SPLIT_FIELDS = (
    ("vocab_size", "tensor"),
    ("num_heads", "tensor"),
    ("num_kv_heads", "tensor"),
    ("d_ff", "tensor"),
    ("d_model", "fsdp"),
)


def spec(logical: Logical, *, without: Sequence[str] = ()) -> PartitionSpec:
    """The PartitionSpec of an array with these logical axes, leaving out mesh axes `without`.

    Raises:
      KeyError: a logical axis that the table does not know.
    """
    entries: list[str | tuple[str, ...] | None] = []
    for name in logical:
        rule = None if name is None else RULES[name]
        axes = (rule,) if isinstance(rule, str) else (rule or ())
        kept = tuple(axis for axis in axes if axis not in without)
        entries.append(kept if len(kept) > 1 else kept[0] if kept else None)
    return PartitionSpec(*entries)


def sharding(mesh: Mesh, logical: Logical) -> NamedSharding:
    return NamedSharding(mesh, spec(logical))


def constrain(x: jax.Array, *logical: str | None) -> jax.Array:
    """Pins `x` to its logical axes on the mesh in context (`jax.set_mesh`), if there is one."""
    if jax.sharding.get_abstract_mesh().empty:
        return x
    return jax.lax.with_sharding_constraint(x, spec(logical))


def gather_fsdp(x: jax.Array, logical: Logical) -> jax.Array:
    """Pins a parameter to its sharding without fsdp, which makes the compiler all-gather it here.

    Called inside the layer, so that under rematerialisation the gathered weight lives for one
    layer only (ZeRO-3, Rajbhandari et al. 2020).
    """
    if jax.sharding.get_abstract_mesh().empty:
        return x
    gathered = jax.lax.with_sharding_constraint(x, spec(logical, without=("fsdp",)))
    return checkpoint_name(gathered, GATHERED)


def batch_shards() -> int:
    """Into how many parts the mesh in context splits the batch."""
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if mesh.empty else math.prod(mesh.shape[axis] for axis in BATCH_AXES)


def tensor_shards() -> int:
    """Size of the mesh axis `tensor` in context."""
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if mesh.empty else mesh.shape["tensor"]
