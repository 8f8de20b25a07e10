"""Which kind of device a program is traced for."""

from __future__ import annotations

import jax


def platform() -> str:
    """`tpu`, `gpu` or `cpu`: of the mesh in context, which need not be attached, or of the process.

    The abstract mesh of `jax.set_mesh` carries the kind of its devices, so that a program which is
    compiled ahead for a TPU takes the TPU's kernels on a machine without one.
    """
    device = jax.sharding.get_abstract_mesh().abstract_device
    return jax.default_backend() if device is None else device.platform
