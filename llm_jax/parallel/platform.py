"""The kind of device that a program is traced for."""

from __future__ import annotations

import jax


def platform() -> str:
    """`tpu`, `gpu` or `cpu`: the devices of the mesh in context, or else those of the process.

    The mesh need not be attached: the abstract mesh of `jax.set_mesh` carries the kind of its
    devices. So a program that is compiled ahead of time for a TPU uses the TPU's kernels even on a
    machine without one.
    """
    device = jax.sharding.get_abstract_mesh().abstract_device
    return jax.default_backend() if device is None else device.platform
