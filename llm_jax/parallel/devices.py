"""The order of devices in a mesh: neighbours on the network lie along the busiest axes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import numpy as np
from jax.experimental import mesh_utils

from llm_jax.config import require

DCN_AXES = ("replica", "pipeline")
"""Mesh axes that may span slices, over the data-centre network: they communicate least."""


def arrange(shape: dict[str, int], devices: Sequence[jax.Device]) -> np.ndarray:
    """`devices` in an array of the shape's sizes, in the order of its axes.

    On TPU, `mesh_utils` lays the axes along the links of the torus, and may split a physical axis.
    Devices of several slices become a hybrid mesh: `DCN_AXES` go over the slices, all other axes
    stay inside of one. Other devices keep their order.

    Raises:
      ConfigError: the slices do not fill `DCN_AXES`, or an axis would leave its slice.
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
    """How many TPU slices `devices` lie in; 1 where they are no TPUs."""
    if devices[0].platform != "tpu":
        return 1
    # Devices of one slice that is compiled for, not attached, do not say which slice it is.
    return len({getattr(device, "slice_index", 0) for device in devices})


def dcn_sizes(shape: dict[str, int], slices: int) -> dict[str, int]:
    """How many slices each of `DCN_AXES` spans: `replica` as many as divide it, then `pipeline`."""
    replica = math.gcd(shape["replica"], slices)
    rest = slices // replica
    require(
        shape["pipeline"] % rest == 0,
        f"The devices lie in {slices} slices, but parallel.replica x pipeline is "
        f"{shape['replica']} x {shape['pipeline']}: only these axes may span slices, so make "
        f"parallel.replica {slices}.",
    )
    return {"replica": replica, "pipeline": rest}
