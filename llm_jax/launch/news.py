"""What a host knows of the others in its attempt.

In a small job every host lists the attempt's folder. In a larger one a few readers do, and publish
what they see as `launch/news/<attempt>.json`, which all others read. Facts are only ever added, so
readers that write over each other lose nothing for longer than until they look again. When the news
stop changing, their writers are gone, and some of the others become readers.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from llm_jax.launch.budget import READERS, Pace, turn_of
from llm_jax.launch.folder import Folder
from llm_jax.launch.peers import Peers
from llm_jax.launch.records import (
    KINDS,
    Kind,
    attempt_folder,
    parsed_object,
    read_object,
    stop_requested,
    write_json,
)
from llm_jax.launch.spec import JobSpec

LEAD = {"address": str, "port": (int,)}
SHAPE = {"lead": (dict,), "ended": bool, "failed": str, "stop": bool}


@dataclass(frozen=True, kw_only=True)
class News:
    """Each field goes from its default to what it stays."""

    lead: dict[str, Any] | None = None
    """What host 0 announced (its address and port), once all hosts are there."""
    ended: bool = False
    """A host's part of the attempt has ended."""
    failed: str = ""
    """The most telling kind of end, other than "finished", that was seen."""
    stop: bool = False
    """Somebody asked the job to stop."""

    def joined(self, other: News) -> News:
        kinds = [kind for kind in KINDS if kind in (self.failed, other.failed)]
        return News(
            lead=self.lead or other.lead,
            ended=self.ended or other.ended,
            failed=kinds[0] if kinds else "",
            stop=self.stop or other.stop,
        )


def news_name(attempt: str) -> str:
    return f"launch/news/{attempt}.json"


class Gang:
    """The other hosts of an attempt, seen by this one, not more often than the pace allows."""

    def __init__(
        self,
        folder: Folder,
        attempt: str,
        spec: JobSpec,
        process: int,
        pace: Pace,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.folder, self.attempt, self.spec, self.process = folder, attempt, spec, process
        self.pace, self.say = pace, say
        self.turn = turn_of(process, spec.hosts)
        """Place among the readers; None if this host reads the news."""
        self.alone = spec.hosts <= READERS
        self.peers = Peers(folder, attempt, spec, process)
        self.known = News()
        self.over = False
        """Seen by a reader: every host that came has ended."""
        self._asked = -float("inf")
        self._held: tuple[bytes | None, float] = (None, time.monotonic())
        self._chance = READERS / spec.hosts
        self._dice = random.Random(f"{attempt} {process}")

    @property
    def interval(self) -> float:
        """Seconds between two looks."""
        return self.pace.news if self.turn is None else self.pace.look

    @property
    def due(self) -> float:
        """When the next look is due, in monotonic seconds."""
        return self._asked + self.interval

    def look(self, started: bool) -> News:
        """What is known; asks the folder if that is due.

        Args:
          started: trainers run, so a host that does not change its file is silent.
        """
        now = time.monotonic()
        if now < self.due:
            return self.known
        self._asked = now + self._dice.uniform(-0.1, 0.1) * self.interval
        if not self.alone:
            self._hear(now)
        if self.turn is not None:
            self._read(now, started)
        return self.known

    def _hear(self, now: float) -> None:
        """Takes in the news; a host that hears nothing new for long may become a reader."""
        name = news_name(self.attempt)
        data = self.folder.read(name)
        if data != self._held[0]:
            self._held = data, now
            raw = parsed_object(self.folder, name, data, SHAPE)
            lead = raw.get("lead") if raw else None
            if raw is not None and (lead is None or _is_lead(lead)):
                fields = {field: raw[field] for field in asdict(News()) if field in raw}
                self.known = self.known.joined(News(**fields))
        elif self.turn is None and now - self._held[1] > self.pace.stale:
            # As many as there were readers, on the average; twice as many the next time.
            if self._dice.random() < self._chance:
                self.say("no host publishes the news of the others: this one reads them itself")
                self.turn = self._dice.randrange(READERS)
                self.peers.listen_anew()
            self._chance *= 2

    def _read(self, now: float, started: bool) -> None:
        before = self.known
        ended, going = self.peers.look(now if started else None)
        self.over = not going
        all_came = len(ended | going) == self.spec.hosts - 1
        seen = News(
            lead=self.known.lead or (self._lead() if all_came else None),
            ended=bool(ended),
            failed=self.known.failed or self.peers.first_failure(),
            stop=self.known.stop or stop_requested(self.folder),
        )
        self.known = before.joined(seen)
        if not self.alone and (
            self.known != before or now - self._held[1] > self.pace.refresh * (1 + (self.turn or 0))
        ):
            self._publish()

    def end(self, kind: Kind) -> None:
        """Takes in how this host's own part has ended. A reader publishes it: there may be no other
        that sees it."""
        before = self.known
        failed = "" if kind == "finished" else kind
        self.known = before.joined(News(ended=True, failed=failed))
        if self.turn is not None and not self.alone and self.known != before:
            self._publish()

    def _publish(self) -> None:
        value = asdict(self.known) | {"from": self.process, "time": time.time()}
        write_json(self.folder, news_name(self.attempt), value)

    def _lead(self) -> dict[str, Any] | None:
        name = f"{attempt_folder(self.attempt)}/host.0.json"
        held = read_object(self.folder, name, LEAD)
        return held and {field: held.get(field) for field in LEAD}

    def missing_hosts(self) -> list[int]:
        """Hosts that have not come, as the folder lists them now."""
        ended, going = self.peers.look(None)
        return sorted({*range(self.spec.hosts)} - ended - going - {self.process})


def _is_lead(value: dict[str, Any]) -> bool:
    port = value.get("port")
    return isinstance(value.get("address"), str) and (port is None or type(port) is int)
