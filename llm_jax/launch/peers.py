"""The other hosts of an attempt, seen through the output folder: who has ended, who is silent."""

from __future__ import annotations

from llm_jax.launch.folder import Folder
from llm_jax.launch.records import (
    KINDS,
    attempt_folder,
    outside_record,
    parsed_object,
    record_exit,
    trainer_status,
)
from llm_jax.launch.spec import JobSpec


class Peers:
    """Notices hosts whose agent has fallen silent, and writes the exit record that they cannot.

    Clocks of two machines differ, so silence is a file that does not change while this host's own
    clock runs on.
    """

    def __init__(self, folder: Folder, attempt: str, spec: JobSpec, process: int) -> None:
        self.folder, self.attempt, self.spec, self.process = folder, attempt, spec, process
        self.seen: dict[int, tuple[str, float]] = {}
        self.ends: dict[str, bytes | None] = {}
        """Exit records of others that were read, by their names."""
        self.ended: set[int] = set()

    def look(self, now: float | None) -> tuple[set[int], set[int]]:
        """Takes in the signs of life.

        Args:
          now: monotonic seconds; None while nobody has to give signs.

        Returns:
          The hosts that have ended, and those that came and have not; without this host.
        """
        names = self.folder.names(attempt_folder(self.attempt))
        ended, going = set(), set()
        for p in range(self.spec.hosts):
            sign = f"{attempt_folder(self.attempt)}/host.{p}"
            if p == self.process:
                continue
            if f"{sign}.exit.json" in names:
                ended.add(p)
            elif f"{sign}.json" in names:
                going.add(p)
                if now is not None:
                    self._listen(p, names[f"{sign}.json"], now)
        self.ended = ended
        return ended, going

    def listen_anew(self) -> None:
        """Counts silence from the next look on."""
        self.seen.clear()

    def first_failure(self) -> str:
        """The kind of the first end, by host, that is not "finished"; "" if there is none."""
        for process in sorted(self.ended):
            name = self._exit_name(process)
            if name in self.ends:
                continue  # it was read at an earlier look
            self.ends[name] = self.folder.read(name)
            kind = self._kind(name)
            if kind in KINDS and kind != "finished":
                return kind
        return ""

    def read_ends(self) -> None:
        """Reads the exit records that have not been read yet, side by side."""
        names = [self._exit_name(p) for p in sorted(self.ended)]
        self.ends |= self.folder.read_many([name for name in names if name not in self.ends])

    def _exit_name(self, process: int) -> str:
        return f"{attempt_folder(self.attempt)}/host.{process}.exit.json"

    def _kind(self, name: str) -> str:
        record = parsed_object(self.folder, name, self.ends[name], {"kind": str})
        return record["kind"] if record else ""

    def _listen(self, process: int, version: str, now: float) -> None:
        heard, since = self.seen.get(process, ("", now))
        limit = self.spec.limits.heartbeat
        if version != heard:
            self.seen[process] = (version, now)
        elif now - since > limit:
            words = f"its agent has been silent for {limit:.0f} s"
            status = trainer_status(self.folder, process)
            record_exit(self.folder, self.attempt, outside_record(process, "lost", words, status))
