"""Back ends: each turns a job into actions (`render`, pure) and carries them out.

`local` runs processes here; `slurm`, `tpu`, `gke` talk to their scheduler; `skypilot` writes a
file. All of them start the same agent with the same output folder.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Literal, Protocol

from llm_jax.launch.actions import Action
from llm_jax.launch.spec import JobSpec

State = Literal["absent", "waiting", "running", "preempted", "failed", "ended"]


@dataclass(frozen=True)
class Resource:
    """What the back end says about the hosts of a job."""

    state: State
    detail: str = ""
    lost: tuple[int, ...] = ()
    """Hosts whose agent is known to have died without leaving a record."""


class Driver(Protocol):
    """One job on one back end."""

    restarts_itself: bool
    """The back end starts lost hosts again without a supervisor outside."""

    def render(self, incarnation: int) -> list[Action]:
        """The actions that allocate the hosts and start the agents. Pure."""

    def check(self) -> None:
        """Raises `UserError` for whatever would make `apply` fail: credentials, names, sizes."""

    def apply(self, action: Action) -> None: ...

    def resource(self) -> Resource: ...

    def remove(self) -> None:
        """Gives all hosts back and returns once they are gone. Does nothing if they are."""

    def billable(self) -> list[str]:
        """What of this job exists and might cost money, one line each."""


def driver(spec: JobSpec) -> Driver:
    """The driver for the job's back end; imports that back end alone."""
    module = importlib.import_module(f"llm_jax.launch.backends.{spec.backend.kind}")
    return module.Driver(spec)
