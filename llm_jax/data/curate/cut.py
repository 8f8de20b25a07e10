"""Reads sources and cuts their documents into shards, the same whoever reads them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from llm_jax.data.clean import Cleaner
from llm_jax.data.corpus import Progress
from llm_jax.data.curate import shards
from llm_jax.data.curate.draft import Draft
from llm_jax.data.sources import LeftOut, Source
from llm_jax.data.sources.left_out import HALF_CHARACTERS


def cut(
    sources: Iterable[Source], cleaner: Cleaner, left_out: LeftOut, progress: Progress
) -> Iterator[tuple[int, list[Draft]]]:
    """The documents of all sources, cleaned, a shard at a time, with the number of documents so far
    that are not losses."""
    shard: list[Draft] = []
    size = used = number = 0
    for source in sources:
        for document in source.documents(left_out):
            text = cleaner.clean(document.text)
            try:
                size += len(text.encode())
            except UnicodeEncodeError:
                left_out.lose(HALF_CHARACTERS, document.source, document.line)
                continue
            used += 1
            if reason := cleaner.reason_to_drop(text):
                left_out.skip(reason, document.source, document.line)
                continue
            draft = Draft.of_document(document, source.name, number)
            draft.rewrite(text)
            shard.append(draft)
            number += 1
            progress("reading documents", number, None)
            if size >= shards.SHARD_BYTES:
                yield used, shard
                shard, size = [], 0
    if shard or used:
        yield used, shard
