"""No secret enters a job: its specification and its run are stored, and shown, in the clear."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from llm_jax.config import ConfigError
from llm_jax.config.secrets import secret_in, secret_variable

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
