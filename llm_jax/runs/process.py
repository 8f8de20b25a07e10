"""Which process wrote a record, and whether it is still there, without trusting its number alone.

Numbers of processes are used again, containers all count from 1, cloned machines have one name, and
a machine that was rebooted has forgotten everybody. So a process is known by the kernel's boot id,
its namespace of process numbers, its number, and when it was started.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

BOOT = Path("/proc/sys/kernel/random/boot_id")


def this_process() -> dict[str, Any]:
    """What identifies the calling process, as JSON takes it."""
    pid = os.getpid()
    return {"host": socket.gethostname(), **_machine(), "pid": pid, "started": _started(pid)}


def is_alive(record: dict[str, Any]) -> bool | None:
    """Whether the process that `this_process` has described still runs.

    None if it cannot be seen from here: on another machine, in another container, or before this
    machine was rebooted.
    """
    pid = record.get("pid")
    here = _machine()
    if {name: record.get(name) for name in here} != here or not isinstance(pid, int) or pid < 1:
        return None
    started = _started(pid)
    return started is not None and started == record.get("started")


def _machine() -> dict[str, str]:
    """Equal in two processes exactly if each can see the other."""
    try:
        boot = BOOT.read_text(encoding="ascii").strip()
        return {"boot": boot, "space": str(Path("/proc/self/ns/pid").readlink())}
    except OSError:  # not Linux
        return {"boot": socket.gethostname(), "space": ""}


def _started(pid: int) -> int | None:
    """When a process was started, in ticks since the machine was; None if it has ended.

    Where the system does not tell, 0 for every process that runs.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0 if not BOOT.exists() and _exists(pid) else None
    state, *fields = stat.rpartition(")")[2].split()
    return None if state in ("Z", "X") else int(fields[18])  # field 22 of proc(5)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
