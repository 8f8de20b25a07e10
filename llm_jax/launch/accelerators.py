"""What an accelerator's name means to a launcher: hosts, devices, and the names clouds give it.

`v5p-128` is a TPU slice (v4, v5p and tpu7x names count cores, v5e and v6e names count chips),
`h100-8` a machine with 8 GPUs, `a3-megagpu-8g` a machine type of Google Cloud with 8 of them,
`cpu-2` a machine with 2 CPU devices. Sizes and topologies come from the planner's hardware table;
here is only what launching adds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

from llm_jax.config import ConfigError, nearest, require
from llm_jax.config.wording import counted
from llm_jax.facts.hardware import CHIPS
from llm_jax.launch.gpu_machines import DEFAULT, MACHINES


@dataclass(frozen=True)
class Accelerator:
    """One slice: the hosts that share one interconnect. A GPU or CPU machine is a slice of one."""

    name: str
    chip: str
    kind: Literal["tpu", "gpu", "cpu"]
    hosts: int
    """Hosts (processes) in one slice."""
    chips_per_host: int
    topology: str
    """TPU torus such as `4x4x4`; empty for machines."""
    machine: str = ""
    """Machine type of Google Cloud, if the name says it: `a3-megagpu-8g`."""
    hosts_per_machine: int = 1
    """Trainer processes on one machine."""

    @property
    def devices(self) -> int:
        """JAX devices of one slice; a chip of tpu7x is two."""
        per_chip = CHIPS[self.chip].devices_per_chip if self.chip in CHIPS else 1
        return self.hosts * self.chips_per_host * per_chip

    @property
    def machines(self) -> int:
        """Machines of one slice."""
        return self.hosts // self.hosts_per_machine

    def by_numa_node(self) -> Accelerator:
        """With a process for each NUMA node of a machine, where it has two: a tpu7x machine has
        four chips, two on each ("About Ironwood in GKE", NUMA binding)."""
        if self.chip != "tpu7x" or self.chips_per_host != 4:
            return self
        return replace(self, hosts=2 * self.hosts, chips_per_host=2, hosts_per_machine=2)


MOST_CPU_DEVICES = 1024
"""XLA starts threads for each; only tests and rehearsals want more than one."""
# GKE node labels (cloud.google.com/gke-tpu-accelerator): GKE documentation, "TPUs in GKE".
GKE_TPU_LABEL = {
    "v4": "tpu-v4-podslice",
    "v5e": "tpu-v5-lite-podslice",
    "v5p": "tpu-v5p-slice",
    "v6e": "tpu-v6e-slice",
    "tpu7x": "tpu7x",
}
GKE_GPU_LABEL = {
    "a100": "nvidia-a100-80gb",
    "h100": "nvidia-h100-80gb",
    "h200": "nvidia-h200-141gb",
    "b200": "nvidia-b200",
}
# Machine types are PREFIX-4t for four chips ("Plan TPUs in GKE").
TPU_MACHINE = {
    "v4": "ct4p-hightpu",
    "v5e": "ct5lp-hightpu",
    "v5p": "ct5p-hightpu",
    "v6e": "ct6e-standard",
    "tpu7x": "tpu7x-standard",
}
# TPU VM images: Cloud TPU documentation, "TPU software versions". tpu7x is missing since it
# exists on GKE only ("Manage queued resources": for Ironwood, you must use GKE).
TPU_RUNTIME = {
    "v4": "tpu-ubuntu2204-base",
    "v5e": "v2-alpha-tpuv5-lite",
    "v5p": "v2-alpha-tpuv5",
    "v6e": "v2-alpha-tpuv6e",
}


def accelerator(name: str) -> Accelerator:
    """The accelerator of that name.

    Raises:
      ConfigError: no such chip, or no slice of that size; the sentence names the nearest.
    """
    if name in MACHINES:
        return Accelerator(name, MACHINES[name].chip, "gpu", 1, 8, "", machine=name)
    match = re.fullmatch(r"([a-z][a-z0-9]{0,19})-(\d{1,9})", name, re.ASCII)
    require(
        match is not None,
        f"accelerator is {name!r}: write chip and size, such as v5p-128, v6e-64, h100-8 or cpu-2.",
    )
    assert match is not None
    chip, size = match.group(1).replace("v5litepod", "v5e"), int(match.group(2))
    require(size > 0, f"accelerator is {name!r}: its size must be above 0.")
    if chip == "cpu":
        require(
            size <= MOST_CPU_DEVICES,
            f"accelerator is {name!r}: a machine makes at most {MOST_CPU_DEVICES:,} CPU devices.",
        )
        return Accelerator(name, chip, "cpu", 1, size, "")
    if chip not in CHIPS:
        raise ConfigError(f"accelerator is {name!r}: {nearest(chip, [*CHIPS, 'cpu'])}")
    if CHIPS[chip].kind == "gpu":
        most = CHIPS[chip].chips_per_host
        require(
            size <= most,
            f"accelerator is {name!r}: a machine has at most {counted(most, f'{chip} GPU')}.",
        )
        return Accelerator(name, chip, "gpu", 1, size, "")
    return _tpu_slice(name, chip, size)


def _tpu_slice(name: str, chip: str, size: int) -> Accelerator:
    facts = CHIPS[chip]
    sizes = {s.chips * facts.cores_in_name: s for s in facts.slices}
    if size not in sizes:
        near = sorted(sizes, key=lambda known: abs(known - size))[:3]
        names = ", ".join(f"{chip}-{known}" for known in sorted(near))
        raise ConfigError(f"accelerator is {name!r}: there is no such slice; near it are {names}.")
    found = sizes[size]
    # The small 2D slices are one machine: Cloud TPU documentation, v5e and v6e configurations.
    single = facts.ici_axes == 2 and found.chips <= 8
    hosts = 1 if single else found.hosts
    return Accelerator(name, chip, "tpu", hosts, found.chips // hosts, found.topology)


def gce_machine(of: Accelerator) -> str:
    """Compute Engine's machine type; empty where several have such GPUs or CPUs."""
    if of.kind == "tpu":
        return f"{TPU_MACHINE[of.chip]}-{of.chips_per_host * of.hosts_per_machine}t"
    whole = of.kind == "gpu" and of.chips_per_host == 8
    return of.machine or (DEFAULT.get(of.chip, "") if whole else "")


def gce_type(of: Accelerator) -> str:
    """Accelerator type in the Cloud TPU API, where v5e is called v5litepod."""
    return of.name.replace("v5e-", "v5litepod-")
