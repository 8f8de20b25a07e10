"""`data curate` and `data build` as a job: the verb runs on the cluster, and not only its tasks.

It needs no supervisor. On Slurm it is a batch job of one task, which submits its job arrays from
its node; it is requeued when its node is lost or its time is up, and the verb resumes. On Ray it is
a job that the head takes over HTTP, so this machine needs neither Ray nor the cluster's files.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from llm_jax.config import ConfigError, UserError
from llm_jax.config.secrets import secret_in
from llm_jax.launch.actions import Action
from llm_jax.launch.backends.slurm import COMMENT, SubmitBatch
from llm_jax.launch.folder import LocalFolder
from llm_jax.launch.forms import LONGEST_WORD, check_text, shell_word, slurm_file
from llm_jax.launch.slurm_commands import batch_script, submitted
from llm_jax.launch.tasks.places import RayTasks, SlurmTasks
from llm_jax.launch.tasks.python import python_lines

SECONDS = 30.0
"""For the head of a Ray cluster to take a job."""
RESTARTS = 3
"""How often a job that is out of time requeues itself: one that does not get on must end."""
WARNING = 60
"""Seconds before its end in which the verb cancels its arrays."""


@dataclass(frozen=True)
class SubmitRayJob(Action):
    """A POST of `body` as JSON to a Ray cluster (its Jobs REST API)."""

    url: str
    body: dict[str, str]


def check_words(words: list[str]) -> None:
    """Raises `ConfigError` if a word of the verb cannot be passed on, or looks like a secret."""
    for word in words:
        check_text("A word of the verb", word, most=LONGEST_WORD)
        if why := secret_in(word):
            raise ConfigError(
                f"A word of the verb looks like a secret ({why}), and a job is stored in the "
                "clear: put it where the nodes read it."
            )


def on_slurm(place: SlurmTasks, words: list[str], out: Path) -> SubmitBatch:
    """The batch job that runs `llm-jax WORDS`, which writes `out`. Pure."""
    address = LocalFolder(str(out)).address
    check_text("--out", address)
    check_words(words)
    options = [
        f"--job-name={'-'.join(words[:2])}",
        f"--comment={COMMENT}{address}",
        f"--output={slurm_file(str(log_file(out)))}",
        "--open-mode=append",
        "--requeue",
        f"--signal=B:USR1@{WARNING}",
        *place.options(),
    ]
    verb = " ".join(map(shell_word, words))
    lines = [
        "# By which it takes over at once what its own earlier attempt was writing.",
        'export LLM_JAX_JOB="slurm-$SLURM_JOB_ID"',
        'export LLM_JAX_ATTEMPT="$(printf %04d "${SLURM_RESTART_COUNT:-0}")"',
        *python_lines(place.setup),
        f'"$python" -m llm_jax {verb} &',
        "verb=$!",
        "late=",
        "trap 'late=yes; kill -TERM \"$verb\"' USR1",
        "# A signal ends `wait` before the verb has ended.",
        'wait "$verb"; code=$?',
        'while kill -0 "$verb" 2>/dev/null; do wait "$verb"; code=$?; done',
        f'[ -n "$late" ] && [ "${{SLURM_RESTART_COUNT:-0}}" -lt {RESTARTS} ] &&',
        '  scontrol requeue "$SLURM_JOB_ID"',
        'exit "$code"',
    ]
    return SubmitBatch(("sbatch", "--parsable"), batch_script(options, lines))


def log_file(out: Path) -> Path:
    """Where the verb's output goes: beside what it writes."""
    path = LocalFolder(str(out)).path
    return path.with_name(f"{path.name}.launch.log")


def on_ray(place: RayTasks, words: list[str], out: Path) -> SubmitRayJob:
    """The Ray job that runs `llm-jax WORDS`, which writes `out`. Pure.

    Raises:
      UserError: the address is not that of a cluster's jobs, or `out` is relative.
    """
    if not place.address.startswith("http"):
        raise UserError(
            f"--ray-address is {place.address!r}: a job is submitted to http://HOST:8265, the "
            "dashboard of the cluster's head."
        )
    if not out.is_absolute():
        raise UserError(f"--out is {str(out)!r}: give the path from / on, as all nodes see it.")
    check_words(words)
    # The last one counts: from within, the cluster is the one that the job runs on.
    inside = [*words, "--ray-address", "auto"]
    entrypoint = " ".join(["python3", "-m", "llm_jax", *map(shell_word, inside)])
    return SubmitRayJob(f"{place.address.rstrip('/')}/api/jobs/", {"entrypoint": entrypoint})


def submit(action: SubmitBatch | SubmitRayJob) -> str:
    """Carries the action out; returns the job's name there.

    Raises:
      UserError: the cluster does not answer, or refuses.
    """
    if isinstance(action, SubmitBatch):
        return submitted(action.argv, action.script)
    request = urllib.request.Request(
        action.url,
        data=json.dumps(action.body).encode(),
        headers={"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            return str(json.load(answer)["submission_id"])
    except urllib.error.HTTPError as error:
        said = error.read().decode(errors="replace").strip() or error.reason
        raise UserError(f"The Ray cluster refused the job: {said.splitlines()[-1]}") from None
    except (OSError, ValueError, KeyError) as error:
        why = getattr(error, "reason", error)
        raise UserError(
            f"No Ray cluster takes jobs at {action.url} ({why}): give http://HOST:8265 of a head "
            "that has the package ray[default]."
        ) from None
