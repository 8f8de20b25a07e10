"""What the agent makes sure of before a trainer starts: its host, its devices, all other hosts."""

from __future__ import annotations

import ipaddress
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llm_jax.config.wording import counted
from llm_jax.facts.attached import TPU_FILES
from llm_jax.launch.folder import Folder
from llm_jax.launch.records import attempt_folder, write_json
from llm_jax.launch.spec import JobSpec, Local
from llm_jax.launch.startup import start_failures

SHOWN = 3
"""Hosts whose failure a sentence tells."""


class Refused(Exception):
    """A check failed; the message is the sentence for the exit record."""


def this_process(spec: JobSpec, env: Mapping[str, str]) -> int:
    """This host's number in the gang, as its back end tells it in the environment.

    Raises:
      Refused: nothing tells it, or the number is not below `spec.hosts`.
    """
    if "LLM_JAX_SLICE" in env:
        slice_, worker = int(env["LLM_JAX_SLICE"]), int(env["LLM_JAX_WORKER"])
        if "LLM_JAX_SHARES_MACHINE" in env:
            # Several containers hold the chips of one machine. GKE numbers those of a slice in this
            # variable, by which the TPU runtime and JAX go (jax/_src/clusters).
            if not env.get("TPU_WORKER_ID", "").isdigit():
                raise Refused(
                    "TPU_WORKER_ID does not tell which of its machine's agents this is: launch "
                    "with --numa false"
                )
            worker = int(env["TPU_WORKER_ID"])
        process = slice_ * spec.slice_type.hosts + worker
    else:
        told = env.get("LLM_JAX_PROCESS", env.get("SLURM_PROCID"))
        if told is None:
            raise Refused("nothing in the environment tells this host's number in the gang")
        process = int(told)
    if not 0 <= process < spec.hosts:
        raise Refused(f"this is host {process}, but the job has only {counted(spec.hosts, 'host')}")
    return process


def own_address(spec: JobSpec) -> str:
    """The address at which other hosts of the gang reach this one.

    Raises:
      Refused: the host's own name does not resolve, or resolves to loopback where Gloo, which
        listens on what the name resolves to, must be reached from other machines.
    """
    if isinstance(spec.backend, Local):
        return "127.0.0.1"
    name = socket.gethostname()
    try:
        resolved = socket.gethostbyname(name)
    except OSError:
        raise Refused(
            f"the host name {name} does not resolve: add it to DNS or /etc/hosts"
        ) from None
    if not ipaddress.ip_address(resolved).is_loopback:
        return resolved
    if spec.slice_type.kind == "cpu" and spec.hosts > 1:
        raise Refused(
            f"the host name {name} resolves to {resolved}, where other hosts cannot reach it: "
            "correct /etc/hosts"
        )
    return _outgoing_address()


def _outgoing_address() -> str:
    """Address of the interface that the default route uses; no packet is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # TEST-NET-1, RFC 5737
        except OSError:
            return "127.0.0.1"
        return probe.getsockname()[0]


def free_port(address: str) -> int:
    """A port that is free now. Each attempt chooses one, so that two gangs never share it."""
    with socket.socket() as probe:
        probe.bind((address, 0))
        return probe.getsockname()[1]


def check_devices(processes: Path = Path("/proc")) -> None:
    """Raises `Refused` if a process that was left behind still holds an accelerator device."""
    for descriptors in processes.glob("[0-9]*/fd"):
        pid = descriptors.parent.name
        if int(pid) == os.getpid():
            continue
        try:
            held = [str(link.readlink()) for link in descriptors.iterdir()]
        except OSError:
            continue  # it has ended, or belongs to someone else
        for device in held:
            if device.startswith(TPU_FILES):
                raise Refused(f"process {pid} still holds {device}: end it")


def announce(folder: Folder, attempt: str, process: int, presence: dict[str, Any]) -> None:
    """Says that this host is there; called again every few seconds as a sign of life."""
    name = f"{attempt_folder(attempt)}/host.{process}.json"
    write_json(folder, name, presence | {"time": time.time()})


def why_missing(folder: Folder, attempt: str, spec: JobSpec, missing: list[int]) -> str:
    """What the start-up scripts of missing hosts have recorded, if they have."""
    failures = start_failures(folder, spec, int(attempt.split(".")[0]))
    told = [str(one) for one in failures if one.process is None or one.process in missing]
    return f": {'; '.join(told[:SHOWN])}" if told else ""


def missing_sentence(missing: list[int], spec: JobSpec) -> str:
    shown = ", ".join(map(str, missing[:8])) + (", …" if len(missing) > 8 else "")
    return (
        f"after {spec.rendezvous_seconds:.0f} s host{'s' * (len(missing) > 1)} {shown} of "
        f"{spec.hosts} had not started"
    )
