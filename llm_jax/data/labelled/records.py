"""Records of labelled examples in JSON, CSV and TSV files, and what each kind must hold."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from llm_jax.config import UserError
from llm_jax.config.heads import Head
from llm_jax.data.sources import csv_rows, json_records
from llm_jax.data.sources.encodings import Encoding
from llm_jax.data.sources.left_out import LeftOut, Unusable

UTF8 = Encoding("utf-8-sig", "utf-8")
MOST_BYTES = 64 << 20
"""Of a line."""
PIECE = 1 << 20
FIELDS: dict[Head, str] = {
    "tag": "words and tags, two lists of one length",
    "answer": "question, context, and answers with text and answer_start",
    "classify": "text, label, and text_pair for pairs",
    "embed": "text and text_pair, and score for similarities",
}
"""Kind → the fields of its records, in the order in which kinds are tried."""


class Example(NamedTuple):
    """One record.

    Attributes:
      texts: one text or two; of `tag`, the words.
      target: of `classify` a label; of `tag` a tag for each word; of `answer` begin and end of the
        answer in the context, in characters, or None; of `embed` the score, or None.
    """

    texts: tuple[str, ...]
    target: Any


def kind_of(record: dict[str, Any]) -> Head | None:
    """What a record's fields are for; None if nothing."""
    if "words" in record:
        return "tag"
    if "question" in record and "context" in record:
        return "answer"
    if "text" in record and "label" in record:
        return "classify"
    return "embed" if "text" in record and "text_pair" in record else None


def read_examples(
    paths: Iterable[Path], left_out: LeftOut, kind: Head | None = None
) -> tuple[Head, list[Example]]:
    """The examples of all files, in their order.

    Args:
      left_out: counts the records that cannot be used.
      kind: of the records; None: that of the first.

    Raises:
      UserError: a file cannot be read, or there is no example.
    """
    found, names = list[Example](), ", ".join(map(str, paths))
    for path in paths:
        for line, record in _records(path):
            if isinstance(record, dict):
                kind = kind or kind_of(record)
            try:
                if isinstance(record, Unusable):
                    raise record
                if kind is None:
                    raise Unusable("no known fields")
                found.append(example_of(record, kind))
            except Unusable as error:
                left_out.lose(error.reason, str(path), line, error.detail)
    if kind is None or not found:
        known = "; ".join(f"{name}: {fields}" for name, fields in FIELDS.items())
        wanted = known if kind is None else f"{kind}: {FIELDS[kind]}"
        raise UserError(f"{names} has no example that can be used: give records with {wanted}.")
    return kind, found


def read_records(path: Path) -> list[dict[str, Any]]:
    """The records of a file, whatever their fields; raises `UserError` if one cannot be read."""
    found = list[dict[str, Any]]()
    for line, record in _records(path):
        if not isinstance(record, dict):
            why = record.reason if isinstance(record, Unusable) else "not an object"
            raise UserError(f"{path}, line {line or 1}: {why}: correct it.")
        found.append(record)
    return found


def _records(path: Path) -> Iterator[tuple[int | None, Any]]:
    suffix = path.suffix.lower().removeprefix(".")
    if not path.is_file():
        raise UserError(f"There is no file {str(path)!r}: check the path.")
    if suffix in ("jsonl", "json"):
        yield from json_records.records(_pieces(path), UTF8, MOST_BYTES)
    elif suffix in csv_rows.DELIMITERS:
        try:
            for row in csv_rows.rows(_pieces(path), suffix, UTF8, (), MOST_BYTES):
                yield row.line, row.record
        except Unusable as error:
            yield error.line, error
    else:
        raise UserError(f"{str(path)!r} is not a .jsonl, .json, .csv or .tsv file: convert it.")


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            yield piece


def example_of(record: Any, kind: Head, *, labelled: bool = True) -> Example:
    """The example in a record; raises `Unusable` if it has none.

    Args:
      labelled: it must have its target.
    """
    if not isinstance(record, dict):
        raise Unusable("not an object")
    if kind == "tag":
        words = _list(record, "words")
        tags = _list(record, "tags") if labelled else [""] * len(words)
        if len(tags) != len(words):
            raise Unusable("not a tag for each word", f"{len(words)} words, {len(tags)} tags")
        return Example(tuple(words), tuple(tags))
    if kind == "answer":
        question, context = _text(record, "question"), _text(record, "context")
        return Example((question, context), _answer(record, context) if labelled else None)
    texts: tuple[str, ...] = (_text(record, "text"),)
    if kind == "embed" or record.get("text_pair") is not None:
        texts += (_text(record, "text_pair"),)
    if kind == "embed":
        return Example(texts, _score(record))
    return Example(texts, _label(record) if labelled else None)


def _text(record: dict[str, Any], name: str) -> str:
    value = record.get(name)
    if not isinstance(value, str):
        raise Unusable(f"no {name}")
    if not value.strip():
        raise Unusable(f"empty {name}")
    return _unicode(value)


def _unicode(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Unusable("lone surrogates") from None
    return value


def _list(record: dict[str, Any], name: str) -> list[str]:
    value = record.get(name)
    if not isinstance(value, list) or not value:
        raise Unusable(f"no {name}")
    if not all(isinstance(one, str) and one.strip() for one in value):
        raise Unusable(f"{name} that are not text")
    return [_unicode(one) for one in value]


def _label(record: dict[str, Any]) -> str:
    value = record.get("label")
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) or (isinstance(value, str) and value.strip()):
        return _unicode(str(value))
    raise Unusable("no label", f"{value!r}"[:80])


def _score(record: dict[str, Any]) -> float | None:
    if (value := record.get("score")) in (None, ""):
        return None
    try:
        score = float(value)
    except (TypeError, ValueError):
        score = math.nan
    if isinstance(value, bool) or not -1 <= score <= 1:
        raise Unusable("score not from -1 to 1", f"{value!r}"[:80])
    return score


def _answer(record: dict[str, Any], context: str) -> tuple[int, int] | None:
    """Begin and end of the first answer in the context; None if the list of answers is empty."""
    answers = record.get("answers")
    if not isinstance(answers, dict):
        raise Unusable("no answers")
    texts, starts = answers.get("text"), answers.get("answer_start")
    texts = texts if isinstance(texts, list) else [texts]
    starts = starts if isinstance(starts, list) else [starts]
    if not texts and not starts:
        return None
    text, start = (texts or [None])[0], (starts or [None])[0]
    if not isinstance(text, str) or not isinstance(start, int) or not text.strip():
        raise Unusable("no answers")
    if start < 0 or context[start : start + len(text)] != text:
        raise Unusable("answer that is not at its place", f"{text!r} at {start}"[:80])
    return start, start + len(text)
