"""What `render` returns and `apply` consumes: each action is data with its exact payload.

Back ends add their own kinds. An action prints as its class name and its fields, which is what
`launch run --dry-run` shows.
"""

from __future__ import annotations

import io
import subprocess
import tarfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from llm_jax.config import RunConfig, UserError, to_json
from llm_jax.launch.folder import open_folder
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
    """The files of `source` that git tracks (all, if it is not a repository) as one tar file."""

    source: str
    folder: str
    name: str

    def apply(self) -> None:
        open_folder(self.folder).write(self.name, _pack(Path(self.source)))


@dataclass(frozen=True)
class WriteLocalFile(Action):
    """A file on this machine, for another tool to read."""

    path: str
    text: str

    def apply(self) -> None:
        write_text(Path(self.path), self.text)


def _pack(source: Path) -> bytes:
    listed = subprocess.run(
        ["git", "-C", str(source), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
    )
    if listed.returncode == 0:
        files = [source / name for name in listed.stdout.decode().split("\0") if name]
    else:
        files = sorted(source.rglob("*"))
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for file in files:
            # A link could point outside the folder, at a key for instance.
            if file.is_file() and not file.is_symlink():
                tar.add(file, arcname=file.relative_to(source).as_posix())
    if not packed.tell():
        raise UserError(f"job.code is {str(source)!r}, which holds no files.")
    return packed.getvalue()


def folder_actions(spec: JobSpec, run: RunConfig, first: int) -> list[Action]:
    """What every back end begins with: the job, the run, and the code in the output folder."""
    run = replace(run, out=spec.out)
    actions: list[Action] = [PutFile(spec.out, "launch/run.json", to_json(run))]
    if plan := plan_named(spec.config):
        actions.append(PutFile(spec.out, f"launch/{PLAN}", to_json(plan)))
    if spec.code is not None:
        actions.append(SendCode(spec.code, spec.out, "launch/code.tar.gz"))
    actions.append(PutFile(spec.out, "launch/job.json", job_json(spec, first)))
    return actions
