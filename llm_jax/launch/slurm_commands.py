"""Slurm's commands, and the sentences where they do not answer."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Sequence

from llm_jax.config import UserError
from llm_jax.launch.forms import shell_word


def nodes_of(partition: str | None, shown: str) -> dict[str, str]:
    """Name of each node → its generic resources, as `sinfo` writes them.

    Args:
      partition: counts its nodes alone; None: all of the cluster's.
      shown: the field or flag that names it.

    Raises:
      UserError: there is no Slurm, or no such partition.
    """
    only = [f"--partition={partition}"] if partition else []
    lines = slurm_output("sinfo", "--noheader", "--Node", "--format=%N %G", *only).split("\n")
    nodes = dict(line.split(maxsplit=1) for line in lines if line.strip())
    if partition and not nodes:
        known = sorted(set(slurm_output("sinfo", "--noheader", "--format=%R").split()))
        raise UserError(
            f"{shown} is {partition!r}, which this cluster does not have: choose one of "
            f"{', '.join(known)}."
        )
    return nodes


def batch_script(options: Iterable[str], lines: Iterable[str]) -> str:
    """A script of these `lines` that `sbatch` reads its `options` from."""
    head = ["#!/bin/bash", *(f"#SBATCH {shell_word(option)}" for option in options)]
    return "\n".join([*head, *lines]) + "\n"


def submitted(argv: Sequence[str], script: str) -> str:
    """The number of the job that `argv`, an `sbatch --parsable`, makes of `script`."""
    return slurm_output(*argv, stdin=script).strip().split(";")[0]


def job_fields(job: str) -> dict[str, str]:
    """What `scontrol` knows of a job, or of a task of an array; empty if it has forgotten it."""
    shown = slurm_output("scontrol", "show", "job", job, "--oneliner", missing_ok=True)
    return dict(word.split("=", 1) for word in shown.split() if "=" in word)


def slurm_output(*argv: str, stdin: str | None = None, missing_ok: bool = False) -> str:
    """Standard output of a Slurm command; raises `UserError` with what it complained about."""
    try:
        done = subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=60)
    except FileNotFoundError:
        raise UserError(
            f"The command {argv[0]} was not found: run this on a machine of the Slurm cluster."
        ) from None
    except subprocess.TimeoutExpired:
        raise UserError(
            f"{argv[0]} did not answer within a minute: ask slurmctld's admin."
        ) from None
    if done.returncode and not (missing_ok and "Invalid job id" in done.stderr):
        complaint = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
        raise UserError(f"{argv[0]} refused: {complaint}.")
    return done.stdout
