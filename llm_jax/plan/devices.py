"""Which accelerators this machine has, told by its device files before JAX looks for them."""

from __future__ import annotations

from pathlib import Path

TPU_FILES = ("/dev/accel", "/dev/vfio/")
"""How the device files of TPUs begin, on older and newer VM images."""
WITHOUT_TPU = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_MIN_LOG_LEVEL": "3",
    "TPU_STDERR_LOG_LEVEL": "3",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "true",
}
"""Environment in which libtpu does not look for a machine, does not say that it found none, and
does not mind other processes that compile."""


def maybe_tpu() -> bool:
    """Whether there is a TPU, or a PCI device of Google's (0x1ae0), which might be one."""
    vendors = Path("/sys/bus/pci/devices").glob("*/vendor")
    return any(map(_exists, TPU_FILES)) or any(
        vendor.read_text().strip() == "0x1ae0" for vendor in vendors
    )


def maybe_accelerator() -> bool:
    """Whether there is a TPU or an NVIDIA GPU."""
    return maybe_tpu() or _exists("/dev/nvidia")


def _exists(name: str) -> bool:
    """Whether there is a file `name` followed by a number."""
    path = Path(name + "[0-9]*")
    return any(path.parent.glob(path.name))
