"""Detects accelerators by their device files, before JAX looks for them."""

from __future__ import annotations

from pathlib import Path

TPU_FILES = ("/dev/accel", "/dev/vfio/")
"""Starts of the names of TPU device files, on older and newer VM images."""
WITHOUT_TPU = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_MIN_LOG_LEVEL": "3",
    "TPU_STDERR_LOG_LEVEL": "3",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "true",
}
"""Environment in which libtpu does not look for a TPU, does not log that there is none, and allows
other processes to compile at the same time."""


def maybe_tpu() -> bool:
    """Whether there is a TPU, or a PCI device by Google (0x1ae0), which may be one."""
    vendors = Path("/sys/bus/pci/devices").glob("*/vendor")
    return any(map(_exists, TPU_FILES)) or any(
        vendor.read_text().strip() == "0x1ae0" for vendor in vendors
    )


def maybe_accelerator() -> bool:
    """Whether there is a TPU or an NVIDIA GPU."""
    return maybe_tpu() or _exists("/dev/nvidia")


def _exists(name: str) -> bool:
    """Whether a file exists whose name is `name` and a number."""
    path = Path(name + "[0-9]*")
    return any(path.parent.glob(path.name))
