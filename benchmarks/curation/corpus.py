"""Made documents of real text, as many as a measurement needs."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

from llm_jax.data.sources import FileSource, LeftOut, Source, StdlibSource

CHARACTERS = 4000
"""Least of a document."""
FILES = 8
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def paragraphs_of(inputs: list[Path], size: int) -> list[str]:
    """Paragraphs of the texts in `inputs` (none: the standard library), about `size` bytes."""
    sources: list[Source] = [FileSource(path) for path in inputs] or [StdlibSource()]
    found: list[str] = []
    for source in sources:
        for document in source.documents(LeftOut()):
            for part in filter(str.strip, document.text.split("\n\n")):
                found.append(part[:CHARACTERS])
                size -= len(part.encode())
                if size <= 0:
                    return found
    return found


def made_documents(paragraphs: list[str], size: int) -> Iterator[str]:
    """Documents of paragraphs drawn at random, of `size` bytes together, the same each time. Two
    share few paragraphs, so that none is a near-duplicate."""
    draw = random.Random(0)
    while size > 0:
        parts: list[str] = []
        while sum(map(len, parts)) < CHARACTERS:
            parts.append(paragraphs[int(draw.random() * len(paragraphs))])
        text = "\n\n".join(parts)
        size -= len(text.encode())
        yield text


def short_documents(number: int) -> Iterator[str]:
    """`number` different documents of eight made-up words."""
    draw = random.Random(1)
    for _ in range(number):
        yield " ".join("".join(draw.choices(LETTERS, k=6)) for _ in range(8))


def write_files(folder: Path, texts: Iterator[str]) -> float:
    """Writes JSON lines to `FILES` files in turns; returns megabytes of text."""
    folder.mkdir(parents=True)
    files = [
        (folder / f"{number}.jsonl").open("w", encoding="utf-8", newline="\n")
        for number in range(FILES)
    ]
    size = 0
    for number, text in enumerate(texts):
        size += len(text.encode())
        files[number % FILES].write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
    for file in files:
        file.close()
    return size / 1e6
