"""Reads sources into a corpus, in tasks, and joins what they wrote."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from llm_jax.config import UserError
from llm_jax.data.building.events import Replay
from llm_jax.data.building.join import Joined
from llm_jax.data.building.task import run_task
from llm_jax.data.building.work import Work
from llm_jax.data.clean import Cleaner
from llm_jax.data.corpus import Corpus, Progress
from llm_jax.data.sources import LeftOut, Source
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
    joined = _Corpus(work, left_out, progress)
    with (spread or Spread(run_task)).tasks() as tasks:
        joined.read(sources, tasks, work.folder)
    corpus = joined.corpus
    corpus.used = joined.used
    corpus.finish()
    if len(corpus) == 0:
        raise UserError(f"The corpus is empty: {_why_empty(left_out)}")
    left_out.check(corpus.used)
    return corpus


class _Corpus(Joined):
    """The documents of all shards, each text once."""

    def __init__(self, work: Work, left_out: LeftOut, progress: Progress) -> None:
        super().__init__(work, progress)
        self.corpus = Corpus()
        self._left_out = left_out

    def add(self, shard: int, source: int, result: dict[str, Any]) -> int:
        work = self._work
        parts = [(source, licence, class_) for licence, class_ in result["parts"]]
        index = load_array(work.path("read", shard, "index.npy"))
        duplicates = self.corpus.add(work.path("read", shard, "texts"), index, parts)
        replay = Replay(result["events"], self._left_out)
        for i, (file, line) in _places(work.path("read", shard, "places.jsonl"), duplicates):
            replay.up_to(i)
            self._left_out.skip("duplicate", file, line)
        replay.rest()
        return len(self.corpus)


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
