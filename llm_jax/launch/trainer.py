"""The trainer as the agent's child: started, listened to, signalled, and never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

TAIL_BYTES = 16 << 10
BUFFER_BYTES = 16 << 20
LINE_BYTES = 64 << 10  # a longer line is taken in pieces
LEASH = Path(__file__).with_name("leash.py")


class Trainer:
    """A child in its own process group, whose output is collected by a thread."""

    def __init__(
        self, command: Sequence[str], env: Mapping[str, str], wake: threading.Event | None = None
    ) -> None:
        """Starts it; `wake` is set when it ends."""
        self.child = subprocess.Popen(
            [sys.executable, "-S", str(LEASH), str(os.getpid()), *command],
            env=dict(env),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._lock = threading.Lock()
        self._unsent = b""
        self._dropped = 0
        self.tail = b""
        """The last output, for finding the cause."""
        self.heard = time.monotonic()
        """When it wrote something last."""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        if wake is not None:
            threading.Thread(target=self._report_end, args=(wake,), daemon=True).start()

    def _report_end(self, wake: threading.Event) -> None:
        self.child.wait()
        wake.set()

    def _read(self) -> None:
        assert self.child.stdout is not None
        descriptor = self.child.stdout.fileno()
        while data := os.read(descriptor, 1 << 16):
            with self._lock:
                self.heard = time.monotonic()
                self.tail = (self.tail + data)[-TAIL_BYTES:]
                self._unsent += data
                excess = len(self._unsent) - BUFFER_BYTES
                if excess > 0:  # the folder takes nothing: keep the newest
                    self._unsent = self._unsent[excess:]
                    self._dropped += excess

    def take_output(self) -> bytes:
        """What was written since the last call."""
        with self._lock:
            data, dropped = self._unsent, self._dropped
            self._unsent, self._dropped = b"", 0
        if dropped:
            return b"[%d bytes of output were dropped here]\n" % dropped + data
        return data

    def take_lines(self) -> bytes:
        """What `take_output` returns, up to the end of the last line; all once it has ended."""
        data = self.take_output()
        lines, newline, rest = data.rpartition(b"\n")
        if self.code() is not None or len(rest) > LINE_BYTES:
            return data
        self.give_back(rest)
        return lines + newline

    def give_back(self, data: bytes) -> None:
        """Puts output back that could not be stored, so that the next call returns it again."""
        with self._lock:
            self._unsent = data + self._unsent

    def code(self) -> int | None:
        """Exit code, minus the signal if one ended it; None while it runs."""
        return self.child.poll()

    def is_stopped(self) -> bool:
        """Whether something froze the process (SIGSTOP, a debugger)."""
        try:
            stat = Path(f"/proc/{self.child.pid}/stat").read_text(encoding="utf-8")
        except OSError:
            return False
        return stat.rpartition(")")[2].split()[0] in ("T", "t")

    def send(self, number: signal.Signals) -> None:
        """Signals the trainer alone; its own children are its business."""
        if self.child.poll() is None:
            self.child.send_signal(number)

    def kill(self) -> None:
        """Ends the whole process group, at once."""
        try:
            os.killpg(self.child.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        self.child.wait()

    def finish(self) -> None:
        """After the end: takes leftovers of the group along and collects the last output."""
        self.kill()
        self._reader.join(timeout=5)


def kernel_kills(events: Path = Path("/sys/fs/cgroup/memory.events")) -> int:
    """How often the kernel has killed in this cgroup (v2) for lack of memory; 0 if unknown."""
    try:
        lines = dict(line.split() for line in events.read_text(encoding="utf-8").splitlines())
    except (OSError, ValueError):
        return 0
    return int(lines.get("oom_kill", 0))
