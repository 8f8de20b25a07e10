"""What is left out of a shard, kept so that another record of losses can be given the same."""

from __future__ import annotations

from typing import Any

from llm_jax.data.sources import LeftOut
from llm_jax.data.sources.left_out import LISTED, LOST, SKIPPED


class Events(LeftOut):
    """Keeps the first `LISTED` of each kind and reason, and counts the others, which are not named.

    Attributes:
      place: of what is recorded next, such as the number of documents before it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.clear()

    def clear(self) -> None:
        """Forgets everything."""
        self.place = 0
        self._kept: list[list[Any]] = []
        self._listed.clear()

    def __bool__(self) -> bool:
        return bool(self._kept)

    def lose(self, reason: str, file: str, line: int | None = None, detail: str = "") -> None:
        self._keep(LOST, reason, file, line, detail)

    def skip(self, reason: str, file: str, line: int | None = None) -> None:
        self._keep(SKIPPED, reason, file, line, "")

    def _keep(self, kind: str, reason: str, file: str, line: int | None, detail: str) -> None:
        self._listed[kind, reason] += 1
        if self._listed[kind, reason] <= LISTED:
            self._kept.append([self.place, kind, reason, file, line, detail])

    def to_dict(self) -> dict[str, Any]:
        more = [[*key, n - LISTED] for key, n in self._listed.items() if n > LISTED]
        return {"kept": self._kept, "more": more}


class Replay:
    """Gives what `Events.to_dict` returned to `left_out`, in the same order."""

    def __init__(self, events: dict[str, Any], left_out: LeftOut) -> None:
        self._kept, self._more = events["kept"], events["more"]
        self._left_out = left_out
        self._next = 0

    def up_to(self, place: int) -> None:
        """Gives what was recorded at places up to this one."""
        while self._next < len(self._kept) and self._kept[self._next][0] <= place:
            _, kind, reason, file, line, detail = self._kept[self._next]
            self._next += 1
            if kind == LOST:
                self._left_out.lose(reason, file, line, detail)
            else:
                self._left_out.skip(reason, file, line)

    def rest(self) -> None:
        """Gives everything that is left."""
        if self._kept:
            self.up_to(self._kept[-1][0])
        for kind, reason, number in self._more:
            self._left_out.count(kind, reason, number)
