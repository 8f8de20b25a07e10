"""What a checkpoint has read, and from where it began: in the checkpoint, and `lineage.json`.

    format
    run, step, tokens  name of the run; steps and tokens behind it, since it began
    stages             steps from `first` to before `end`: the `run`, the `stage` of its mixture,
                       and what was `read`: the digest of a `text`, its `tokens`, and the `rows`
                       (from, to) of the order that `seed` and `seq_len` give
    texts              digest of a text: `name` and `path` of the dataset, its `tokens`, and its
                       `sources` with `licence`, `class`, `documents` and `tokens`
    began              null for random weights; else `kind` (run or model), `run`, `name`, `step`,
                       the `licence` of a model, the `lineage` of a run
    branches           runs that it went on from, `run`, `name` and `step`: their stages are among
                       `stages`

Tokens of one source among several of a dataset are its share of the dataset: documents are read in
random order.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_jax.config import UserError, read_json, require_shape
from llm_jax.config.migrations import too_new
from llm_jax.runs.files import write_text

FILE = "lineage.json"
FORMAT = 1
UNKNOWN = "unknown"
"""Licence of a text or a model that none was recorded of."""

READ = {"text": str, "tokens": int, "rows": [int], "seed": int, "seq_len": int}
SOURCE = {"name": str, "licence": str, "class": str, "documents": (int,), "tokens": (int,)}
SHAPE: dict[str, Any] = {
    "format": int,
    "run": str,
    "step": int,
    "tokens": int,
    "stages": [{"run": str, "stage": int, "first": int, "end": int, "read": [READ]}],
    "texts": {str: {"name": str, "path": (str,), "tokens": int, "sources": [SOURCE]}},
    "began": ({"kind": str, "run": str, "name": str, "step": int, "licence": (str,),
               "lineage": (dict,)},),
    "branches": [{"run": str, "name": str, "step": int}],
}  # fmt: skip
DEEPEST = 30
"""Most runs that began with one another's weights."""

Lineage = dict[str, Any]


@dataclass(frozen=True)
class SourceRead:
    """Text of one licence and class that the weights were trained on."""

    run: str
    """Name of the run that read it."""
    text: str
    """Name of the dataset."""
    source: str
    licence: str
    class_: str
    tokens: int
    """Tokens of it that were read, repetitions included; rounded up."""
    exact: bool
    """Whether `tokens` is not an estimate."""


def saved_lineage(folder: Path, step: int | None) -> Lineage | None:
    """The lineage that checkpoint `step` of the run in `folder` carries; None if it has none, or
    there is no such checkpoint. `step` None: what lineage.json holds, the newest.

    Raises:
      UserError: it is damaged, or a newer version wrote it.
    """
    file = folder / FILE
    if step is not None:
        file = folder / "checkpoints" / str(step) / "meta" / "metadata"
    if not file.is_file():
        return None
    held = read_json(file)
    if step is not None:
        held = held.get("lineage") if isinstance(held, dict) else None
    return None if held is None else checked(held, str(file))


def checked(held: Any, where: str, depth: int = 0) -> Lineage:
    """`held`, if it has the shape of a lineage."""
    written = held.get("format") if isinstance(held, dict) else None
    if problem := too_new(f"{where} has format", written, FORMAT):
        raise UserError(problem)
    try:
        require_shape(held, SHAPE)
        for stage in held["stages"]:
            for read in stage["read"]:
                if read["text"] not in held["texts"] or len(read["rows"]) != 2:
                    raise UserError("a stage names a text that it does not describe")
        if depth > DEEPEST:
            raise UserError(f"more than {DEEPEST} runs began with one another's weights")
    except UserError as error:
        raise UserError(f"{where} is not a lineage ({error}): restore the file.") from None
    if held.get("began") and held["began"].get("lineage"):
        checked(held["began"]["lineage"], where, depth + 1)
    return held


def write_lineage(out: Path, lineage: Lineage) -> None:
    write_text(out / FILE, json.dumps(lineage, indent=1, ensure_ascii=False) + "\n")


def ancestors(lineage: Lineage) -> Iterator[Lineage]:
    """The lineage, that of the weights it began with, and so on."""
    now: Lineage | None = lineage
    while now:
        yield now
        now = (now.get("began") or {}).get("lineage")


def origin(lineage: Lineage) -> dict[str, Any] | None:
    """The model from elsewhere that the oldest ancestor began with; None for random weights."""
    began = [one.get("began") for one in ancestors(lineage)][-1]
    return began or None


def read_of(lineage: Lineage) -> dict[str, int]:
    """Digest of each text → its tokens that were read, without those of the ancestors."""
    found: dict[str, int] = {}
    for stage in lineage["stages"]:
        for read in stage["read"]:
            found[read["text"]] = found.get(read["text"], 0) + read["tokens"]
    return found


def sources_read(lineage: Lineage) -> list[SourceRead]:
    """Everything that the weights were trained on, the ancestors' reading included."""
    found = []
    for one in reversed([*ancestors(lineage)]):
        for digest, tokens in read_of(one).items():
            if tokens:
                found += _by_source(one, digest, tokens)
    return found


def _by_source(lineage: Lineage, digest: str, tokens: int) -> list[SourceRead]:
    text = lineage["texts"][digest]
    sizes = [source.get("tokens") for source in text["sources"]]
    whole = sum(size or 0 for size in sizes)
    known = whole > 0 and None not in sizes
    made = []
    for source, size in zip(text["sources"], sizes, strict=True):
        if size == 0:
            continue
        own = -(-tokens * (size or 0) // whole) if known else tokens
        made.append(
            SourceRead(
                lineage["run"],
                text["name"],
                source["name"],
                source["licence"],
                source["class"],
                own,
                exact=len(sizes) == 1,
            )
        )
    return made
