"""The order of devices in a mesh: the busiest axes run along neighbours on the network."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import numpy as np
from jax.experimental import mesh_utils

from llm_jax.config import require

DCN_AXES = ("replica", "pipeline")
"""Mesh axes that may span slices over the data-centre network, because they communicate least."""


def arrange(shape: dict[str, int], devices: Sequence[jax.Device]) -> np.ndarray:
    """`devices` as an array whose axes and sizes are those of `shape`.

    On TPU, `mesh_utils` lays the axes along the links of the torus, and may split a physical axis.
    Devices of several slices form a hybrid mesh: `DCN_AXES` span the slices, and all other axes
    stay inside one slice. Other devices keep their order.

    Raises:
      ConfigError: the sizes of `DCN_AXES` do not match the number of slices.
    """
    slices = slice_count(devices)
    if slices == 1:
        return mesh_utils.create_device_mesh(
            tuple(shape.values()), devices, allow_split_physical_axes=True
        )
    over_dcn = dict.fromkeys(shape, 1) | dcn_sizes(shape, slices)
    inside = [size // over_dcn[axis] for axis, size in shape.items()]
    return mesh_utils.create_hybrid_device_mesh(
        inside, tuple(over_dcn.values()), devices, allow_split_physical_axes=True
    )


def slice_count(devices: Sequence[jax.Device]) -> int:
    """Number of TPU slices that `devices` belong to; 1 if they are not TPUs."""
    if devices[0].platform != "tpu":
        return 1
    # Devices of a single slice that is not attached (ahead-of-time compile) have no slice index.
    return len({getattr(device, "slice_index", 0) for device in devices})


def dcn_sizes(shape: dict[str, int], slices: int) -> dict[str, int]:
    """Number of slices that each of `DCN_AXES` spans: first `replica`, as far as it divides, then
    `pipeline`.

    Raises:
      ConfigError: `pipeline` is not a multiple of the slices that `replica` leaves.
    """
    replica = math.gcd(shape["replica"], slices)
    rest = slices // replica
    require(
        shape["pipeline"] % rest == 0,
        f"The devices are in {slices} slices, but parallel.replica x pipeline is "
        f"{shape['replica']} x {shape['pipeline']}: only these axes may span slices, so make "
        f"parallel.replica {slices}.",
    )
    return {"replica": replica, "pipeline": rest}
