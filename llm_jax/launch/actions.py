"""What `render` returns and `apply` consumes: each action is data with its exact payload.

Back ends add their own kinds. An action prints as its class name and its fields, which is what
`launch run --dry-run` shows.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from llm_jax.config import RunConfig, UserError, to_json
from llm_jax.launch.code import CODE, digest, pack
from llm_jax.launch.folder import open_folder
from llm_jax.launch.lock import REQUIREMENTS, UV, Lock
from llm_jax.launch.records import job_json
from llm_jax.launch.spec import JobSpec
from llm_jax.runs.files import write_text
from llm_jax.runs.plan_file import PLAN, plan_named


@dataclass(frozen=True)
class Action:
    def describe(self) -> dict[str, Any]:
        return {"action": type(self).__name__, **asdict(self)}


@dataclass(frozen=True)
class PutFile(Action):
    """One small file in the output folder."""

    folder: str
    name: str
    text: str

    def apply(self) -> None:
        open_folder(self.folder).write(self.name, self.text.encode())


@dataclass(frozen=True)
class SendCode(Action):
    """The files of `source` as one tar file (`code.pack`)."""

    source: str
    folder: str
    name: str
    sha256: str

    def apply(self) -> None:
        packed = pack(Path(self.source))
        if digest(packed) != self.sha256:
            raise UserError(
                f"job.code is {self.source!r}, whose files changed while the job was launched: "
                "launch it again."
            )
        open_folder(self.folder).write(self.name, packed)


@dataclass(frozen=True)
class WriteLocalFile(Action):
    """A file on this machine, for another tool to read."""

    path: str
    text: str

    def apply(self) -> None:
        write_text(Path(self.path), self.text)


def folder_actions(
    spec: JobSpec, run: RunConfig, first: int, lock: Lock | None = None
) -> list[Action]:
    """What every back end begins with: the job, the run, and what its hosts install.

    Args:
      lock: goes with `spec.code`, see `pinned.pin`.
    """
    run = replace(run, out=spec.out)
    actions: list[Action] = []
    if spec.code is not None and lock is not None:
        actions.append(SendCode(spec.code, spec.out, f"launch/{CODE}", spec.sha256[CODE]))
        actions.append(PutFile(spec.out, f"launch/{REQUIREMENTS}", lock.requirements))
        actions.append(PutFile(spec.out, f"launch/{UV}", lock.uv))
    actions.append(PutFile(spec.out, "launch/run.json", to_json(run)))
    if plan := plan_named(spec.config):
        actions.append(PutFile(spec.out, f"launch/{PLAN}", to_json(plan)))
    actions.append(PutFile(spec.out, "launch/job.json", job_json(spec, first)))
    return actions
