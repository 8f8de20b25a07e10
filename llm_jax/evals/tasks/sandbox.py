"""Runs a program that a model wrote, in a process of its own that can do little harm.

  limits        seconds of CPU and of time, bytes of memory, no byte written to a file, no further
                process or thread
  kernel        Landlock, where Linux has it: reads Python and system libraries only; makes,
                writes, removes and executes no file; no TCP, no signal to others. seccomp, on
                x86-64 and ARM64: no process, program, device, socket or signal
  namespaces    of users, processes, mounts and network, where the system allows them: no network,
                and nothing outlives it
  user          nobody, where this process is root
  interpreter   without site-packages, environment and user folder, in an empty temporary folder;
                a hook refuses files, processes, sockets and foreign functions, and functions that
                no hook hears of are taken out (`guard.py`)

Linux only. It is a guard against the mistakes of a model, not against an attacker who knows the
kernel or Python's inside.
"""

from __future__ import annotations

import functools
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_jax.config import UserError

SECONDS, MEMORY = 5, 1 << 30
NOBODY = 65534
NAMESPACES = ("--user", "--map-root-user", "--net", "--pid", "--mount", "--ipc", "--fork")
GUARD = Path(__file__).with_name("guard.py")


@dataclass(frozen=True)
class Cell:
    """How programs are run on this machine.

    Attributes:
      namespaces: whether they get namespaces of their own.
      user: id that they run as; None: ours.
      landlock: version of Landlock that holds them; 0: none.
      seccomp: whether their system calls are filtered.
      alone: whether the kernel refuses them further processes.
    """

    namespaces: bool
    user: int | None
    landlock: int = 0
    seccomp: bool = False
    alone: bool = False

    @property
    def words(self) -> str:
        """What keeps a program in on this machine, for a person."""
        return "; ".join(
            (
                "own namespaces without network" if self.namespaces else "NO own namespaces",
                "user nobody" if self.user else "YOUR user",
                f"Landlock {self.landlock}" if self.landlock else "NO Landlock",
                "seccomp" if self.seccomp else "NO seccomp",
                "no further processes"
                if self.alone
                else "further processes refused by Python ONLY",
                "limits on time, memory and files",
                "no environment, an empty folder, an audit hook",
            )
        )


@functools.cache
def cell() -> Cell:
    """The tightest way that works here.

    Raises:
      UserError: no program runs at all.
    """
    users = (NOBODY, None) if hasattr(os, "getuid") and os.getuid() == 0 else (None,)
    for namespaces in (True, False) if shutil.which("unshare") else (False,):
        for user in users:
            passed, kernel = _run(Cell(namespaces, user), "1 + 1\n", SECONDS)
            if passed:
                return Cell(namespaces, user, **kernel)
    raise UserError("Programs of a model cannot run here: the sandbox needs Linux.")


def passes(program: str, seconds: int = SECONDS) -> bool:
    """Whether a program runs to its end without an exception, in at most so many seconds.

    Raises:
      UserError: no program runs on this machine.
    """
    return _run(cell(), program, seconds)[0]


def _run(how: Cell, program: str, seconds: int) -> tuple[bool, dict[str, Any]]:
    """Whether a program runs to its end, and what the kernel enforces (`guard.py`)."""
    token = secrets.token_hex(16)
    limits = {
        "RLIMIT_CPU": seconds,
        "RLIMIT_AS": MEMORY,
        "RLIMIT_FSIZE": 0,
        "RLIMIT_NPROC": 0,
        "RLIMIT_NOFILE": 64,
        "RLIMIT_CORE": 0,
    }
    asked = json.dumps({"program": program, "token": token, "limits": limits})
    python = [os.path.realpath(sys.executable), "-I", "-S", "-B", "-c", GUARD.read_text("utf-8")]
    command = ["unshare", *NAMESPACES, "--kill-child", "--", *python] if how.namespaces else python
    with tempfile.TemporaryDirectory(prefix="llm-jax-answer-") as folder:
        Path(folder).chmod(0o755)
        options: dict[str, Any] = {"user": how.user, "group": how.user, "extra_groups": []}
        try:
            started = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd=folder,
                env={"PATH": os.defpath},
                start_new_session=True,
                **(options if how.user else {}),
            )
        except OSError:
            return False, {}
        try:
            said, _ = started.communicate(asked.encode(), timeout=2 * seconds)
        except subprocess.TimeoutExpired:
            said = b""
        finally:
            _end(started)
    told, _, end = said.decode("ascii", "replace").partition("\n")
    return end == token, json.loads(told) if end == token else {}


def _end(started: subprocess.Popen[bytes]) -> None:
    """Ends a program and what it has started in its session."""
    import contextlib
    import signal

    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(started.pid, signal.SIGKILL)
    started.wait()
    for pipe in (started.stdin, started.stdout):
        if pipe is not None:
            pipe.close()
