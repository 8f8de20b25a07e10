"""Runs a program that a model wrote, in a process of its own that can do little harm.

  limits        seconds of CPU and of time, bytes of memory, no byte written to a file, processes
  namespaces    of users, processes, mounts and network, where the system allows them: no network,
                and nothing that it starts outlives it
  user          nobody, where this process is root
  interpreter   without site-packages, environment and user folder, in an empty temporary folder;
                a hook refuses files that are written, processes, sockets and foreign functions

Linux only. It is meant for the mistakes of a model, not for an attacker who knows the kernel.
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

SECONDS, MEMORY, PROCESSES = 5, 1 << 30, 16
NOBODY = 65534
NAMESPACES = ("--user", "--map-root-user", "--net", "--pid", "--mount", "--ipc", "--fork")
GUARD = r"""
import json, os, resource, sys
asked = json.load(sys.stdin)
for name, value in asked["limits"].items():
    resource.setrlimit(getattr(resource, name), (value, value))
quiet = os.open(os.devnull, os.O_RDWR)
said = os.dup(1)
for number in (0, 1, 2):
    os.dup2(quiet, number)
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
PARTS = ("os.", "shutil.", "subprocess.", "socket.", "ctypes.", "signal.", "mmap.", "resource.",
         "pty.", "fcntl.", "tempfile.", "sqlite3.", "webbrowser.", "ftplib.", "smtplib.", "urllib.")
HARMLESS = ("os.listdir", "os.scandir", "os.walk", "os.fwalk")
refuse = PermissionError
def hook(event, arguments):
    if event == "open":
        mode, flags = arguments[1], arguments[2]
        if (isinstance(mode, str) and set(mode) & set("wax+")) or (flags or 0) & WRITES:
            raise refuse("a program under test writes no files")
    elif event.startswith(PARTS) and event not in HARMLESS:
        raise refuse("a program under test may not do this: " + event)
program, token, write = compile(asked["program"], "<answer>", "exec"), asked["token"], os.write
sys.addaudithook(hook)
try:
    exec(program, {"__name__": "answer"})
except BaseException:
    os._exit(1)
write(said, token.encode())
os._exit(0)
"""


@dataclass(frozen=True)
class Cell:
    """How programs are run on this machine.

    Attributes:
      namespaces: whether they get namespaces of their own.
      user: id that they run as; None: ours.
    """

    namespaces: bool
    user: int | None

    @property
    def words(self) -> str:
        """What keeps a program in, for a person."""
        own = "own namespaces, no network" if self.namespaces else "NO namespaces of its own"
        return f"{own}; {'user nobody' if self.user else 'your user'}; limits; audit hook"


@functools.cache
def cell() -> Cell:
    """The tightest way that works here.

    Raises:
      UserError: no program runs at all.
    """
    users = (NOBODY, None) if hasattr(os, "getuid") and os.getuid() == 0 else (None,)
    for namespaces in (True, False) if shutil.which("unshare") else (False,):
        for user in users:
            if _run(Cell(namespaces, user), "1 + 1\n", SECONDS):
                return Cell(namespaces, user)
    raise UserError("Programs of a model cannot run here: the sandbox needs Linux.")


def passes(program: str, seconds: int = SECONDS) -> bool:
    """Whether a program runs to its end without an exception, in at most so many seconds.

    Raises:
      UserError: no program runs on this machine.
    """
    return _run(cell(), program, seconds)


def _run(how: Cell, program: str, seconds: int) -> bool:
    token = secrets.token_hex(16)
    limits = {
        "RLIMIT_CPU": seconds,
        "RLIMIT_AS": MEMORY,
        "RLIMIT_FSIZE": 0,
        "RLIMIT_NPROC": PROCESSES,
        "RLIMIT_NOFILE": 64,
        "RLIMIT_CORE": 0,
    }
    asked = json.dumps({"program": program, "token": token, "limits": limits})
    python = [os.path.realpath(sys.executable), "-I", "-S", "-B", "-c", GUARD]
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
            return False
        try:
            said, _ = started.communicate(asked.encode(), timeout=2 * seconds)
        except subprocess.TimeoutExpired:
            said = b""
        finally:
            _end(started)
    return said.decode("ascii", "replace") == token


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
