"""Has tasks read sources, and joins what they wrote, in order."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llm_jax.data.building.cut import shards_of
from llm_jax.data.building.work import Work
from llm_jax.data.corpus import Progress
from llm_jax.data.sources import FileSource, Source
from llm_jax.data.sources.columns import Columns
from llm_jax.data.tasks.spread import PassTasks


class Joined(ABC):
    """What the tasks have read so far, shard by shard.

    Attributes:
      used: documents that are not losses.
    """

    def __init__(self, work: Work, progress: Progress) -> None:
        self.used = 0
        self._work, self._progress = work, progress
        self._columns: list[Columns] = []  # of each source's files
        self._next = 0

    def read(self, sources: Sequence[Source], tasks: PassTasks, folder: Path) -> None:
        """Has `tasks` read all sources, and waits for them.

        Args:
          folder: the first word of a task.

        Raises:
          UserError: a loss, where none is allowed, a task failed, or no file has a column that was
            asked for.
        """
        work, count = self._work, 0
        self._columns = [Columns() for _ in sources]
        for number, source in enumerate(sources):
            for task, given in shards_of(number, source, self._columns[number]):
                if work.give("read", count, task | self.more(source)):
                    if given is not None:
                        given.save(work.path("read", count, "given"))
                    tasks.submit(folder, "read", count)
                count += 1
                self._join(count)
        tasks.join()
        work.wait("read", count)
        self._join(count)
        for source, columns in zip(sources, self._columns, strict=True):
            if isinstance(source, FileSource):
                columns.check(source.input)

    def _join(self, count: int) -> None:
        """Adds those of the first `count` shards that are done, up to one that is not."""
        while self._next < count and self._work.is_done("read", self._next):
            result = self._work.result("read", self._next)
            source = self._work.task("read", self._next)["source"]
            documents = self.add(self._next, source, result)
            self.used += result["used"]
            self._columns[source].merge(result["columns"])
            self._next += 1
            self._progress("reading documents", documents, None)

    def more(self, source: Source) -> dict[str, Any]:
        """What a task is told beside what it is to read."""
        return {}

    @abstractmethod
    def add(self, shard: int, source: int, result: dict[str, Any]) -> int:
        """Adds a shard of the source of that index; returns the number of documents so far.

        Raises:
          UserError: a loss, where none is allowed.
        """
