"""Reads the sources of a curation in tasks, each of which writes shards of documents.

A portion of the sources is what one task reads (`building/cut.py`). How the portions are cut, and
where a shard ends inside of one, follows from the files alone, so the shards are the same with any
number of processes. A document's number counts from the beginning of its portion; the task of pass
0 is told what to add.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from llm_jax.data.building.events import Events, Replay
from llm_jax.data.building.join import Joined
from llm_jax.data.building.read import Cleaned, task_documents
from llm_jax.data.building.work import Work
from llm_jax.data.clean import Cleaner
from llm_jax.data.corpus import Progress
from llm_jax.data.curate import shards
from llm_jax.data.curate.draft import Draft
from llm_jax.data.curate.plan import Plan
from llm_jax.data.sources import Document, LeftOut, Source
from llm_jax.data.sources.columns import Columns
from llm_jax.data.tasks.spread import PassTasks
from llm_jax.runs.tasks import Tasks


def read_sources(
    plan: Plan,
    sources: Sequence[Source],
    cleaner: Cleaner,
    left_out: LeftOut,
    progress: Progress,
    workers: Tasks,
) -> tuple[int, int]:
    """Reads all sources, and starts pass 0 of each shard once the documents before it are counted.

    Returns:
      The number of shards, and of documents that are not losses.
    """
    work = Work(plan.sources, cleaner)
    work.start(also=plan.outputs())
    tasks = PassTasks(lambda folder, name, portion: read_portion(work, portion), lambda: workers)
    joined = _Portions(plan, work, left_out, progress, workers)
    joined.read(sources, tasks, plan.folder)
    return joined.shards, joined.used


class _Portions(Joined):
    """The portions that have been read; pass 0 of their shards is started.

    Attributes:
      shards, documents: so far.
    """

    def __init__(
        self, plan: Plan, work: Work, left_out: LeftOut, progress: Progress, workers: Tasks
    ) -> None:
        super().__init__(work, progress)
        self.shards = self.documents = 0
        self._plan, self._left_out, self._workers = plan, left_out, workers

    def more(self, source: Source) -> dict[str, Any]:
        return {"name": source.name, "shard_bytes": shards.SHARD_BYTES}

    def add(self, shard: int, source: int, result: dict[str, Any]) -> int:
        Replay(result["events"], self._left_out).rest()
        for part in range(len(result["documents"])):
            if not self._plan.is_done(0, self.shards):
                place = (shard, part, self.documents)
                self._workers.submit(self._plan.folder, 0, self.shards, *place)
            self.shards += 1
        self.documents += sum(result["documents"])
        return self.documents


def read_portion(work: Work, portion: int) -> None:
    """Reads a portion, and writes its documents, cleaned, in shards, unless that is done."""
    if work.is_done("read", portion):
        return
    task, events, columns = work.task("read", portion), Events(), Columns()
    given = work.path("read", portion, "given")
    cleaned = Cleaned(work.cleaner, events)
    counts = []
    found = cleaned.texts(task_documents(task, given, events, columns))
    for part, drafts in enumerate(_cut(_drafts(found, task["name"]), task["shard_bytes"])):
        with shards.written(work.path("read", portion, shards.part_suffix(part))) as add:
            for draft in drafts:
                add(draft)
        counts.append(len(drafts))
    work.finish(
        "read",
        portion,
        used=cleaned.used,
        documents=counts,
        events=events.to_dict(),
        columns=columns.to_dict(),
    )
    given.unlink(missing_ok=True)


def _drafts(cleaned: Iterable[tuple[Document, str, bytes]], source: str) -> Iterator[Draft]:
    """The documents, numbered from 0."""
    for number, (document, text, _) in enumerate(cleaned):
        draft = Draft.of_document(document, source, number)
        draft.rewrite(text)
        yield draft


def _cut(drafts: Iterable[Draft], most: int) -> Iterator[list[Draft]]:
    """The documents, a shard at a time."""
    shard: list[Draft] = []
    size = 0
    for draft in drafts:
        shard.append(draft)
        size += draft.num_bytes
        if size >= most or len(shard) == shards.SHARD_DOCUMENTS:
            yield shard
            shard, size = [], 0
    if shard:
        yield shard
