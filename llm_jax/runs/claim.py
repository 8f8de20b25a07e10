"""One writer at a time: a claim on a folder that is being written.

Claim number n is a file `<stem>.<n>.json` in the folder (a run), or beside it (a dataset or an
export, which appears by a rename). It is made by an exclusive create, which local disks, NFS and
mounted buckets offer, so that of several takers exactly one gets it; neither locks nor times of
change are needed. The highest number holds. The holder rewrites its own file every `BEAT` seconds.

A newcomer takes the next number when the holder is known to have ended: at once if it was a process
of this machine that is gone, or an earlier attempt of the same launched job; else when the file has
not changed for `EXPIRES` seconds of the newcomer's own clock. A holder that finds itself replaced
stops writing.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import secrets
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from llm_jax.config import UserError
from llm_jax.runs.files import parents_of, short_name, write_text
from llm_jax.runs.process import is_alive, this_process

POLL = 1.0
BEAT = 15.0
EXPIRES = 120.0
"""Seconds without a sign of life; above twice the minute for which mounts may show an old file."""
JOB, ATTEMPT = "LLM_JAX_JOB", "LLM_JAX_ATTEMPT"
"""Variables in which a launcher names the job, and its attempt; later attempts sort after."""


class Held(UserError):
    """Another process writes there.

    Exit code 1, as of a failure that may go away: a supervisor tries again, and not for ever. 78
    would end the job for good, 75 would let it try again without end.
    """

    exit_code = 1


class Claim:
    """The right to write to `target`, asked for by `look` and given back by `release`."""

    def __init__(self, target: Path, what: str, *, inside: bool) -> None:
        """
        Args:
          what: who claims it, such as "llm-jax train", for the sentence that others get.
          inside: keep the claim in the folder `target`, which is made, and not beside it.
        """
        path = Path(os.path.realpath(target))
        self.target = target
        self._folder = path if inside else path.parent
        self._stem = ".writer" if inside else f".{short_name(path.name)}.writer"
        self._record = {
            "what": what,
            **this_process(),
            "since": time.time(),
            "job": os.environ.get(JOB, ""),
            "attempt": os.environ.get(ATTEMPT, ""),
            "id": secrets.token_hex(8),
            "beat": 0,
        }
        self._number = -1
        self._lost = False
        self._released = threading.Event()
        self._watched: tuple[int, str | None] | None = None
        self._watching_since = 0.0

    def look(self) -> bool:
        """True if the claim is now held; False if it is not known yet: call again in a second.

        Raises:
          Held: the holder is alive.
          OSError: the folder cannot be read or written.
        """
        number, held = self._newest()
        if number >= 0 and not self._is_free(number, held):
            return False
        if not self._create(number + 1):
            return False
        self._number = number + 1
        for older in [other for other in self._numbers() if other < self._number]:
            self._file(older).unlink(missing_ok=True)
        self._keeper = threading.Thread(target=self._keep, daemon=True)
        self._keeper.start()
        return True

    def check(self) -> None:
        """Raises `Held` if another process has taken the claim over: then nothing may be written.

        Known within `BEAT` seconds.
        """
        if self._lost:
            number, held = self._newest()
            raise Held(
                f"{str(self.target)!r} belongs to another process now"
                f"{f' ({_holder(held)})' if number >= 0 else ''}, since this one gave no sign of "
                f"life, or its claim {self._file(self._number)} was deleted: this process stops."
            )

    def release(self) -> None:
        """Lets others write; nothing happens if the claim is not held."""
        self._released.set()
        if self._number >= 0 and self._record["pid"] == os.getpid():  # a fork holds nothing
            # A sign of life that is being written would bring the file back. A mount that does not
            # answer is not waited for longer: the claim then ends with this process.
            self._keeper.join(timeout=BEAT)
            with contextlib.suppress(OSError):  # then it expires, as that of a killed process
                if not self._lost and self._is_mine():
                    self._file(self._number).unlink(missing_ok=True)

    def _file(self, number: int) -> Path:
        return self._folder / f"{self._stem}.{number:06d}.json"

    def _newest(self) -> tuple[int, str | None]:
        """Highest number, -1 if there is none, and what its file holds."""
        number = max(self._numbers(), default=-1)
        return number, _read(self._file(number)) if number >= 0 else None

    def _numbers(self) -> Iterator[int]:
        pattern = re.compile(re.escape(self._stem) + r"\.(\d{6})\.json")
        if self._folder.is_dir():
            for path in self._folder.iterdir():
                if match := pattern.fullmatch(path.name):
                    yield int(match[1])

    def _is_free(self, number: int, held: str | None) -> bool:
        record = _parsed(held)
        same_job = record.get("job") and record.get("job") == self._record["job"]
        if same_job and str(record.get("attempt")) < self._record["attempt"]:
            return True
        alive = is_alive(record)
        if alive is None:
            alive = self._shows_life(number, held)
            if alive is None:
                return False
        if alive:
            raise Held(
                f"{str(self.target)!r} is being written by {_holder(held)}: wait until that ends, "
                "stop it, or choose another folder; if you know that it has ended, delete "
                f"{self._file(number)}."
            )
        return True

    def _shows_life(self, number: int, held: str | None) -> bool | None:
        """Of a holder that cannot be seen: whether its file changes; None while that is open."""
        now = time.monotonic()
        if self._watched is None or self._watched[0] != number:
            self._watched, self._watching_since = (number, held), now
            print(
                f"{str(self.target)!r} is claimed by {_holder(held)}, which cannot be seen from "
                f"here: waiting for a sign of life, at most {EXPIRES:.0f} s",
                file=sys.stderr,
                flush=True,
            )
        if self._watched[1] != held:
            return True
        return None if now - self._watching_since < EXPIRES else False

    def _create(self, number: int) -> bool:
        """Makes the file of that number; False if another process was faster."""
        file, content = self._file(number), json.dumps(self._record)
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        except FileExistsError:
            return False
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
                opened.write(content)
        except OSError as error:
            if error.errno == errno.ESTALE:  # a mounted bucket finds out when the file is closed
                return False
            file.unlink(missing_ok=True)
            raise
        return _read(file) == content

    def _is_mine(self) -> bool:
        return _parsed(_read(self._file(self._number))).get("id") == self._record["id"]

    def _keep(self) -> None:
        """A thread's work: signs of life, until the claim is released or lost."""
        complained = False
        while not self._released.wait(BEAT):
            try:
                if self._file(self._number + 1).exists() or not self._is_mine():
                    self._lost = True
                    return
                self._record["beat"] += 1
                write_text(self._file(self._number), json.dumps(self._record), durable=False)
            except OSError as error:
                if not complained:
                    print(
                        f"warning: no sign of life could be written to {self._folder} ({error}).",
                        file=sys.stderr,
                        flush=True,
                    )
                complained = True


def writer_of(target: Path, *, inside: bool) -> str | None:
    """Who holds the claim on `target`, for a sentence; None if nobody is known to."""
    number, held = Claim(target, "", inside=inside)._newest()
    if number < 0 or is_alive(_parsed(held)) is False:
        return None
    return _holder(held)


@contextlib.contextmanager
def only_writer(
    target: Path,
    what: str,
    *,
    inside: bool = False,
    ask: Callable[[Callable[[], bool]], bool] = lambda look: look(),
) -> Iterator[Claim]:
    """Holds the claim on `target` while the block runs; see `Claim` for `what` and `inside`.

    Args:
      ask: calls `Claim.look`; where several processes write together, one of them does.

    Raises:
      Held: another process writes there.
      OSError: the folder cannot be read or written.
    """
    with parents_of(Path(os.path.realpath(target)) / "inside" if inside else target):
        claim = Claim(target, what, inside=inside)
        try:
            while not ask(claim.look):
                time.sleep(POLL)
            yield claim
        finally:
            claim.release()


def _read(file: Path) -> str | None:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None


def _parsed(content: str | None) -> dict[str, Any]:
    """Empty for a file that is just being written, or holds something else."""
    try:
        found = json.loads(content or "")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _holder(content: str | None) -> str:
    record = _parsed(content)
    since = record.get("since")
    began = ""
    if isinstance(since, int | float) and 0 < since < 2**40:
        began = time.strftime(", since %Y-%m-%d %H:%M:%S %Z", time.localtime(since))
    what, host, pid = (record.get(name, "?") for name in ("what", "host", "pid"))
    return f"`{what}` (process {pid} on {host}{began})"
