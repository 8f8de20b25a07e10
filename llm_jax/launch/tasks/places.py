"""What a user says of the place where tasks run: one frozen class for each."""

from __future__ import annotations

from dataclasses import dataclass

from llm_jax.config import ConfigError
from llm_jax.config.secrets import secret_in
from llm_jax.launch.forms import check_form, check_text

POWERS = {"K": 1, "M": 2, "G": 3, "T": 4}
"""Of 1024, by the unit's letter."""


@dataclass(frozen=True, kw_only=True)
class SlurmTasks:
    """Tasks in job arrays of `sbatch`.

    Attributes:
      partition, account: where, and on whose account; None: the user's default.
      time_limit: of each task, as `sbatch` writes it.
      setup: shell line that makes llm_jax importable on a node; empty: the Python that runs this.
      cpus: of each task.
      memory: of each task, such as 4G; None: the partition's default.

    Raises:
      ConfigError: a text has not the form of its place, or `setup` holds a secret.
    """

    partition: str | None = None
    account: str | None = None
    time_limit: str | None = None
    setup: str = ""
    cpus: int = 1
    memory: str | None = None

    def __post_init__(self) -> None:
        for name in ("partition", "account", "time_limit", "memory"):
            shown = f"--{name.replace('_', '-')}"
            check_form(f"slurm.{name}", getattr(self, name), shown)
        check_text("--setup", self.setup)
        if why := secret_in(self.setup, random=True):
            raise ConfigError(
                f"--setup looks like a secret ({why}), and a job is stored in the clear: write it "
                "into a file that only you can read, and let --setup read it: "
                "export NAME=$(cat FILE)."
            )

    def options(self) -> list[str]:
        """Options of `sbatch` that say where, and what a task gets."""
        given = {
            "partition": self.partition,
            "account": self.account,
            "time": self.time_limit,
            "mem": self.memory,
        }
        named = [f"--{flag}={value}" for flag, value in given.items() if value is not None]
        return ["--ntasks=1", f"--cpus-per-task={self.cpus}", *named]


@dataclass(frozen=True, kw_only=True)
class RayTasks:
    """Tasks on a Ray cluster.

    Attributes:
      address: of the cluster; "auto": the one that this machine is part of.
      cpus: that each task takes of its node.
      memory: that each task takes, such as 4G; None: tasks are placed by their CPUs alone.

    Raises:
      ConfigError: a text has not the form of its place.
    """

    address: str = "auto"
    cpus: int = 1
    memory: str | None = None

    def __post_init__(self) -> None:
        check_form("ray.address", self.address, "--ray-address")
        check_form("slurm.memory", self.memory, "--memory")

    @property
    def memory_bytes(self) -> int | None:
        """`memory` in bytes; without a unit it is in MiB, as in Slurm."""
        if self.memory is None:
            return None
        power = POWERS.get(self.memory[-1], POWERS["M"])
        return int(self.memory.rstrip("KMGT")) * 1024**power
