"""No secret enters a job: its specification and its run are stored, and shown, in the clear."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from llm_jax.config import ConfigError, UserError
from llm_jax.config.secrets import secret_in, secret_variable
from llm_jax.launch.folder import Folder, LocalFolder

if TYPE_CHECKING:
    from llm_jax.launch.spec import JobSpec

WAY_OUT = {
    "local": "set it in the shell that launches, whose environment the trainers get",
    "slurm": "write it into a file that only you can read, and let --setup read it: "
    "export NAME=$(cat FILE)",
    "tpu": "store it in Secret Manager and let the trainer read it there, as the VM's service "
    "account may",
    "gke": "store it in Secret Manager, or in a Kubernetes secret that the trainer may read as the "
    "pod's service account",
    "skypilot": "give it to `sky jobs launch` with --secret NAME",
}
"""Back end → where a secret belongs instead."""


def check_secrets(spec: JobSpec) -> None:
    """Raises `ConfigError` if a text of the job looks like a secret; the sentence does not repeat
    it."""
    for name, value in spec.env.items():
        _refuse(spec, f"job.env.{name}", secret_variable(name, value))
    # Flags and values are words of their own: `--api-key`, `VALUE`.
    command = " ".join(spec.trainer)
    _refuse(spec, "job.trainer", secret_in(command, random=True))
    setup = getattr(spec.backend, "setup", "")
    _refuse(spec, "job.backend.setup", secret_in(setup, random=True))
    judged = {"env", "trainer"}
    rest = {name: value for name, value in asdict(spec).items() if name not in judged}
    for where, text in _texts(rest, "job"):
        _refuse(spec, where, secret_in(text))


def check_run(spec: JobSpec, run: dict[str, Any]) -> None:
    """Raises `ConfigError` if a text of the run, as JSON has it, looks like a secret."""
    for where, text in _texts(run, ""):
        _refuse(spec, where.removeprefix("."), secret_in(text))


def close_folder(folder: Folder, say: Callable[[str], None]) -> None:
    """Makes `launch/` of a folder on a disk its owner's alone, and says so if it was not.

    Raises:
      UserError: it belongs to somebody else.
    """
    if not isinstance(folder, LocalFolder):
        return
    path = folder.path / "launch"
    mode = stat.S_IMODE(path.stat().st_mode) if path.is_dir() else 0o700
    if not mode & 0o077:
        return
    try:
        path.chmod(0o700)
    except OSError as error:
        raise UserError(
            f"{path} has mode {mode:o} and may hold secrets in its logs, and it cannot be closed "
            f"to others ({error.strerror}): let its owner run chmod 700, or choose another job.out."
        ) from None
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        say(f"warning: others can enter {path}, whose file system keeps mode {mode:o}")
    else:
        say(f"{path} had mode {mode:o} and may hold secrets in its logs: it is now 700")


def _texts(value: Any, where: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for name, one in value.items():
            yield from _texts(one, f"{where}.{name}")
    elif isinstance(value, list | tuple):
        for number, one in enumerate(value):
            yield from _texts(one, f"{where}[{number}]")
    elif isinstance(value, str):
        yield where, value


def _refuse(spec: JobSpec, where: str, why: str | None) -> None:
    if why is not None:
        raise ConfigError(
            f"{where} looks like a secret ({why}), and a job is stored in the clear: "
            f"{WAY_OUT[spec.backend.kind]}."
        )
