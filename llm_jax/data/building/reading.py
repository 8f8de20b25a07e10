"""Reads sources into a corpus, in tasks, and joins what they wrote."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from llm_jax.config import UserError
from llm_jax.data.building.cut import shards_of
from llm_jax.data.building.events import Replay
from llm_jax.data.building.task import run_task
from llm_jax.data.building.work import Work
from llm_jax.data.clean import Cleaner
from llm_jax.data.corpus import Corpus, Progress
from llm_jax.data.sources import FileSource, LeftOut, Source
from llm_jax.data.sources.columns import Columns
from llm_jax.data.sources.left_out import CHECK, reasons
from llm_jax.data.tasks.program import load_array
from llm_jax.data.tasks.spread import Spread


def read_corpus(
    sources: Sequence[Source],
    cleaner: Cleaner,
    folder: Path,
    progress: Progress,
    left_out: LeftOut,
    spread: Spread | None = None,
) -> Corpus:
    """Reads all sources into a `Corpus`, whose texts are in `folder`.

    Args:
      folder: what an earlier call for the same sources left there is used.
      spread: runs the tasks; None: all of them in this process.

    Raises:
      UserError: no document is left, or more are lost than `left_out` accepts.
    """
    work = Work(folder, cleaner)
    work.start()
    spread = spread or Spread(run_task)
    joined = _Joined(work, left_out, progress, len(sources))
    count = 0
    with spread.tasks() as tasks:
        for number, source in enumerate(sources):
            for task, given in shards_of(number, source, joined.columns[number]):
                if work.give("read", count, task):
                    if given is not None:
                        given.save(work.path("read", count, "given"))
                    tasks.submit(work.folder, "read", count)
                count += 1
                joined.join(count)
        tasks.join()
    work.wait("read", count)
    joined.join(count)
    corpus = joined.corpus
    for source, columns in zip(sources, joined.columns, strict=True):
        if isinstance(source, FileSource):
            columns.check(source.input)
    corpus.finish()
    if len(corpus) == 0:
        raise UserError(f"The corpus is empty: {_why_empty(left_out)}")
    left_out.check(corpus.used)
    return corpus


class _Joined:
    """What the tasks have read so far, shard by shard.

    Attributes:
      columns: of each source's files.
    """

    def __init__(self, work: Work, left_out: LeftOut, progress: Progress, sources: int) -> None:
        self.corpus = Corpus()
        self.columns = [Columns() for _ in range(sources)]
        self._work, self._left_out, self._progress = work, left_out, progress
        self._next = 0

    def join(self, count: int) -> None:
        """Adds the shards of the first `count` that are done, up to one that is not.

        Raises:
          UserError: a loss, where none is allowed.
        """
        while self._next < count and self._work.is_done("read", self._next):
            self._add(self._next)
            self._next += 1
            self._progress("reading documents", len(self.corpus), None)

    def _add(self, shard: int) -> None:
        work, result = self._work, self._work.result("read", shard)
        source = work.task("read", shard)["source"]
        parts = [(source, licence, class_) for licence, class_ in result["parts"]]
        index = load_array(work.path("read", shard, "index.npy"))
        duplicates = self.corpus.add(work.path("read", shard, "texts"), index, parts)
        replay = Replay(result["events"], self._left_out)
        for i, (file, line) in _places(work.path("read", shard, "places.jsonl"), duplicates):
            replay.up_to(i)
            self._left_out.skip("duplicate", file, line)
        replay.rest()
        self.corpus.used += result["used"]
        self.columns[source].merge(result["columns"])


def _places(path: Path, documents: list[int]) -> Iterator[tuple[int, list[Any]]]:
    """The `documents`, in order, each with its file and line."""
    wanted = iter(documents)
    following = next(wanted, None)
    if following is None:
        return
    with path.open("rb") as lines:
        for number, line in enumerate(lines):
            if number == following:
                yield number, json.loads(line)
                following = next(wanted, None)


def _why_empty(left_out: LeftOut) -> str:
    losses = left_out.summary(0)
    if losses["count"]:
        return f"nothing could be used: {reasons(losses)}. {CHECK}."
    if skipped := left_out.dropped():
        counts = ", ".join(f"{reason} {count:,}" for reason, count in skipped.items())
        return f"everything was left out ({counts}); check --input."
    return "no text file was found; check --input."
