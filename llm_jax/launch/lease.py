"""Only one supervisor acts on a job: a lease in the output folder.

Lease number n is the file `launch/leases/<n>.json`, made by an atomic create, so that of several
takers exactly one gets it. The holder of the highest number supervises. It rewrites its own file
as a sign of life; when that stops changing, the next number may be taken, and whoever finds a
number above its own has lost the job and must not act again.
"""

from __future__ import annotations

import json
import re
import sys
import threading
import time
from collections.abc import Callable

from llm_jax.config import UserError
from llm_jax.launch.folder import Folder
from llm_jax.launch.records import own_files, read_object
from llm_jax.runs.process import is_alive, this_process

EXPIRES = 60.0  # seconds without a sign of life
LEASE_FILE = re.compile(r"launch/leases/(\d{6})\.json")
CONTENT = {"time": float, "released": bool, "host": (str,), "pid": (int,)}


class LeaseLost(Exception):
    """Another supervisor has taken the job over."""


class Lease:
    def __init__(
        self,
        folder: Folder,
        expires: float = EXPIRES,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Takes the lease, waiting `expires` seconds if its last holder may still live.

        Raises:
          UserError: another supervisor is alive; the sentence says where.
        """
        self.folder, self.expires = folder, expires
        last = _highest(folder)
        if last >= 0 and not self._free(last, expires, sleep):
            raise UserError(
                f"The job is supervised already {self._holder(last)}: leave it to that."
            )
        self.number = last + 1
        self.name = _name(self.number)
        if not folder.create(self.name, self._content()):
            raise UserError("The job has just been taken by another supervisor: leave it to that.")
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    def _free(self, number: int, expires: float, sleep: Callable[[float], None]) -> bool:
        held = self.folder.read(_name(number))
        content = read_object(self.folder, _name(number), CONTENT) or {}
        if content.get("released"):
            return True
        if is_alive(content) is False:
            return True
        # Clocks of two machines differ, so life is a change seen, not a time compared.
        waited = 0.0
        while waited < expires:
            sleep(min(1.0, expires))
            waited += min(1.0, expires)
            if self.folder.read(_name(number)) != held or _highest(self.folder) > number:
                return False
        return True

    def _holder(self, number: int) -> str:
        content = read_object(self.folder, _name(number), CONTENT) or {}
        return f"on {content.get('host', '?')} by process {content.get('pid', '?')}"

    def _content(self, released: bool = False) -> bytes:
        signs = {"time": time.time(), "released": released}
        return json.dumps(this_process() | signs).encode()

    def _beat(self) -> None:
        """A thread's work, since giving hosts back can take longer than the lease lasts."""
        while not self._released.wait(self.expires / 6):
            try:
                self.folder.write(self.name, self._content())
            except OSError as error:
                print(f"the lease could not be renewed: {error}", file=sys.stderr)

    def check(self) -> None:
        """Raises `LeaseLost` if another has taken the job over. Called before every action."""
        if _highest(self.folder) > self.number:
            raise LeaseLost

    def release(self) -> None:
        self._released.set()
        self._thread.join()
        self.folder.write(self.name, self._content(released=True))


def is_supervised(folder: Folder) -> bool:
    """Whether a supervisor seems to be alive, for those who only look.

    Where it cannot be seen it is known by the time that it wrote last, and clocks differ.
    """
    number = _highest(folder)
    held = read_object(folder, _name(number), CONTENT) if number >= 0 else None
    content = held or {"released": True}
    if content.get("released"):
        return False
    alive = is_alive(content)
    if alive is not None:
        return alive
    return time.time() - float(content.get("time", 0)) < 2 * EXPIRES


def _name(number: int) -> str:
    return f"launch/leases/{number:06d}.json"


def _highest(folder: Folder) -> int:
    leases = own_files(folder, "launch/leases", LEASE_FILE, "a lease")
    return max((int(lease[1]) for lease in leases), default=-1)
