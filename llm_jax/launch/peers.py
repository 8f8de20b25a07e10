"""The other hosts of an attempt, seen through the output folder: who has ended, who is silent."""

from __future__ import annotations

from llm_jax.launch.folder import Folder
from llm_jax.launch.records import attempt_folder, outside_record, record_exit, trainer_status
from llm_jax.launch.spec import JobSpec


class Peers:
    """Notices hosts whose agent has fallen silent, and writes the exit record that they cannot.

    Clocks of two machines differ, so silence is a file that does not change while this host's own
    clock runs on.
    """

    def __init__(self, folder: Folder, attempt: str, spec: JobSpec, process: int) -> None:
        self.folder, self.attempt, self.spec, self.process = folder, attempt, spec, process
        self.seen: dict[int, tuple[str, float]] = {}

    def look(self, now: float) -> tuple[set[int], set[int]]:
        """Takes in the signs of life; `now` is monotonic seconds.

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
                self._listen(p, names[f"{sign}.json"], now)
        return ended, going

    def _listen(self, process: int, version: str, now: float) -> None:
        heard, since = self.seen.get(process, ("", now))
        limit = self.spec.limits.heartbeat
        if version != heard:
            self.seen[process] = (version, now)
        elif now - since > limit:
            words = f"its agent has been silent for {limit:.0f} s"
            status = trainer_status(self.folder, process)
            record_exit(self.folder, self.attempt, outside_record(process, "lost", words, status))
