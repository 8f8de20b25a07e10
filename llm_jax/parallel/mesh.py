"""The mesh of devices, and the ONE table that maps logical axes of arrays to mesh axes.

Layers name logical axes ("embed", "heads" …). Only this file names "fsdp" or "tensor". The notation
is that of "How to scale your model": W[D_X, F_Y] is a matrix whose rows are split over mesh axis X
and whose columns are split over mesh axis Y.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import jax
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from llm_jax.config import ParallelConfig, require
from llm_jax.config.wording import counted
from llm_jax.parallel.devices import arrange, slice_count

AXES = ("replica", "pipeline", "data", "fsdp", "expert", "context", "tensor")
"""Mesh axes, from the one that communicates least to the one that communicates most."""
BATCH_AXES = ("replica", "data", "fsdp", "expert")

# Logical axis → mesh axes. `None`: not split.
RULES: dict[str, str | tuple[str, ...] | None] = {
    # Activations, x[B_(replica,data,fsdp,expert), T_context, D]. Between sub-layers, tensor splits
    # the length of the residual stream too (sequence parallelism, Korthikanti et al. 2022). Inside
    # a sub-layer it splits heads and ffn. Before and after the blocks, the stages of a pipeline
    # also share the batch.
    "batch": BATCH_AXES,
    "ends_batch": (*BATCH_AXES, "pipeline"),
    "length": "context",
    "stream_length": ("context", "tensor"),
    "act_embed": None,
    # Parameters: fsdp splits the model width (or that of a latent, in what expands it), tensor the
    # Megatron dimension, pipeline the layers.
    # expert splits the experts, and the model width of all other parameters.
    "vocab": "tensor",
    "embed": ("fsdp", "expert"),
    "heads": "tensor",
    "kv_heads": "tensor",
    "head_dim": None,
    "latent": None,
    "mlp": "tensor",
    "experts": "expert",
    "expert_embed": "fsdp",
    "expert_mlp": "tensor",
    "router": None,
    "balance": None,
    "layers": "pipeline",
    "stage": "pipeline",
    "norm": None,
    "position": None,
}
GATHERED_AXES = ("embed",)
"""Logical axes of parameters that are stored split and gathered at the start of their layer.
(Experts gather "expert_embed" in their own code.)"""

Logical = tuple[str | None, ...]

GATHERED = "gathered"
"""Name of gathered weights for the remat policies."""


def make_mesh(parallel: ParallelConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The mesh of `devices` (default: all devices) with axes `AXES`, in the network's order.

    Axes are Auto, not Explicit: the compiler propagates shardings, and constraints bind it
    (docs/adr/0001).

    Raises:
      ConfigError: the product of the axis sizes is not the number of devices, or they do not fit
        the slices.
    """
    devices = jax.devices() if devices is None else devices
    shape = {axis: getattr(parallel, axis) for axis in AXES}
    inner = math.prod(size for axis, size in shape.items() if axis != "data")
    count = len(devices)
    if shape["data"] == -1:
        shape["data"] = max(count // inner, 1)
    product = {axis: size for axis, size in shape.items() if size > 1 or axis == "data"}
    slices = slice_count(devices)
    between = f", with parallel.replica {slices} for the {slices} slices" if slices > 1 else ""
    require(
        shape["data"] * inner == count,
        f"parallel.{' x '.join(product)} is {' x '.join(map(str, product.values()))} = "
        f"{shape['data'] * inner}, but there {'is' if count == 1 else 'are'} "
        f"{counted(count, 'device')}: make the product {count}"
        f"{between}.",
    )
    return Mesh(arrange(shape, devices), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def batch_shards(mesh: Mesh) -> int:
    """Into how many parts the mesh divides a batch."""
    return math.prod(mesh.shape[axis] for axis in BATCH_AXES)


def used_axes(mesh: Mesh) -> dict[str, int]:
    """The mesh axes with more than one device, and their sizes."""
    return {axis: size for axis, size in mesh.shape.items() if size > 1}


def mesh_axes(name: str | None) -> tuple[str, ...]:
    """The mesh axes that split a logical axis, by the table.

    Raises:
      KeyError: the table has no such logical axis.
    """
    rule = None if name is None else RULES[name]
    return (rule,) if isinstance(rule, str) else (rule or ())


def spec(logical: Logical) -> PartitionSpec:
    """The PartitionSpec of an array with these logical axes.

    Raises:
      KeyError: the table has no such logical axis.
    """
    axes = [mesh_axes(name) for name in logical]
    return PartitionSpec(*(one if len(one) > 1 else one[0] if one else None for one in axes))


def in_words(axes: dict[str, int]) -> str:
    """Mesh axes and their sizes, as error sentences name them."""
    return " x ".join(f"{axis!r} of size {size}" for axis, size in axes.items())


def parameter_sharding(
    mesh: Mesh, path: str, shape: tuple[int, ...], logical: Logical
) -> NamedSharding:
    """The sharding of the parameter named `path`.

    Raises:
      ConfigError: the table has no rule for one of its axes, or a mesh axis does not divide it.
    """
    for size, name in zip(shape, logical, strict=True):
        require(
            name is None or name in RULES,
            f"Parameter {path} has logical axis {name!r}, which RULES in parallel/mesh.py does not "
            "have: add a rule.",
        )
        axes = {axis: mesh.shape[axis] for axis in mesh_axes(name)}
        require(
            size % math.prod(axes.values()) == 0,
            f"Parameter {path} has {size} along {name!r}, which mesh axis {in_words(axes)} does "
            "not divide: change one of them.",
        )
    return NamedSharding(mesh, spec(logical))


def sharding(mesh: Mesh, logical: Logical) -> NamedSharding:
    """The sharding on `mesh` of an array with these logical axes."""
    return NamedSharding(mesh, spec(logical))


def constrain(x: jax.Array, *logical: str | None) -> jax.Array:
    """Constrains `x` to the sharding of its logical axes on the mesh in context (`jax.set_mesh`).

    Without a mesh, `x` is returned unchanged. An axis of size 1 is not split: a decoding step is
    one token long.
    """
    if jax.sharding.get_abstract_mesh().empty:
        return x
    pairs = zip(logical, x.shape, strict=True)
    logical = tuple(None if size == 1 else name for name, size in pairs)
    return jax.lax.with_sharding_constraint(x, spec(logical))


def constrain_leading(x: jax.Array) -> jax.Array:
    """Constrains the first axis of `x` to the pipeline's stages; the other axes stay free."""
    free = (PartitionSpec.UNCONSTRAINED,) * (x.ndim - 1)
    return jax.lax.with_sharding_constraint(x, PartitionSpec(*spec(("stage",)), *free))


def gather_fsdp(x: jax.Array, logical: Logical) -> jax.Array:
    """Constrains a parameter to its sharding without `GATHERED_AXES`, which all-gathers it here.

    It is called inside the layer. So, with rematerialisation, a gathered weight lives during one
    layer only (ZeRO-3, Rajbhandari et al. 2020).
    """
    if jax.sharding.get_abstract_mesh().empty:
        return x
    return checkpoint_name(_gather(x, logical), GATHERED)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _gather(x: jax.Array, logical: Logical) -> jax.Array:
    whole = tuple(None if name in GATHERED_AXES else name for name in logical)
    return jax.lax.with_sharding_constraint(x, spec(whole))


# JAX's own rule would gather the gradient too. Here the gradient gets the parameter's sharding, so
# the sum over devices is a reduce-scatter.
_gather.defvjp(
    lambda x, logical: (_gather(x, logical), None),
    lambda logical, _, dx: (jax.lax.with_sharding_constraint(dx, spec(logical)),),
)


def axis_shards(*axes: str) -> int:
    """Product of the sizes of these axes of the mesh in context; 1 without a mesh."""
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if mesh.empty else math.prod(mesh.shape[axis] for axis in axes)


def axes_of(*logical: str) -> tuple[str, ...]:
    """The axes of the mesh in context that split these logical axes over two or more devices."""
    return tuple(a for name in logical for a in mesh_axes(name) if axis_shards(a) > 1)
