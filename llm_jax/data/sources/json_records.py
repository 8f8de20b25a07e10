"""Records of a JSON file: one per line, all in one array, or a single one."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator
from typing import Any

from llm_jax.data.sources.encodings import Encoding
from llm_jax.data.sources.left_out import Unusable

NOT_JSON = "line is not JSON"
Line = tuple[int, bytes | None]
"""Its number from 1, and its bytes without the line end; None if the line is too long."""
Place = tuple[int | None, Any]
"""Line of a record, None if not known, and the record, or why there is none."""

PLAIN = json.JSONDecoder()
# Python makes no int of more than 4,300 digits. The number is not used, but its record's text is.
LONG_NUMBERS = json.JSONDecoder(parse_int=float)


def records(pieces: Iterable[bytes], encoding: Encoding, most: int) -> Iterator[Place]:
    """(line, record or `Unusable`) for JSON content that comes in `pieces`.

    Args:
      most: largest size in bytes of a line, and of a value over several lines.
    """
    lines: Iterator[Line] = (
        (number, raw) for number, raw in split_lines(pieces, most) if raw is None or raw
    )
    first = next(lines, None)
    if first is None:
        return
    value = _value(first[1], encoding, most)
    if isinstance(value, Unusable) and first[1] is not None:
        gathered, whole = _gather(first, lines, most)
        value = _value(whole, encoding, most)
        if not isinstance(value, Unusable):
            yield from ((None, record) for record in _flat(value))
            return
        lines = itertools.chain(gathered, lines)
    else:
        lines = itertools.chain([first], lines)
    for number, raw in lines:
        value = _value(raw, encoding, most)
        if isinstance(value, list):
            yield from ((number, record) for record in value)
        else:
            yield number, value


def split_lines(pieces: Iterable[bytes], most: int) -> Iterator[Line]:
    """Lines that end in \\n, \\r\\n or \\r, stripped of white space; one at a time is in memory."""
    number, parts, size = 1, [], 0
    carriage_return = False
    for piece in pieces:
        piece = b"\r" + piece if carriage_return else piece
        carriage_return = piece.endswith(b"\r")  # its \n may be the next piece's first byte
        piece = piece[:-1] if carriage_return else piece
        if b"\r" in piece:
            piece = piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *ended, rest = piece.split(b"\n")
        for line in ended:
            size += len(line)
            parts.append(line)
            yield number, None if size > most else b"".join(parts).strip()
            number, parts, size = number + 1, [], 0
        size += len(rest)
        parts.append(rest)
        if size > most:
            parts = []
    yield number, None if size > most else b"".join(parts).strip()


def _gather(first: Line, lines: Iterator[Line], most: int) -> tuple[list[Line], bytes | None]:
    """The lines that were read, and all of them as one text; None if that is too long."""
    gathered, size = [first], len(first[1] or b"")
    for line in lines:
        gathered.append(line)
        size += len(line[1] or b"")
        if line[1] is None or size > most:
            return gathered, None
    return gathered, b"\n".join(raw for _, raw in gathered if raw)


def _flat(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _value(raw: bytes | None, encoding: Encoding, most: int) -> Any:
    """The JSON value in `raw`, or the `Unusable` that says why there is none."""
    if raw is None:
        return too_long(most)
    try:
        text = encoding.decode(raw).lstrip("\ufeff")
    except Unusable as error:
        return Unusable(error.reason, error.detail)
    try:
        return PLAIN.decode(text)
    except (ValueError, RecursionError) as error:
        return _again(text) if type(error) is ValueError else _why(error)


def _again(text: str) -> Any:
    try:
        return LONG_NUMBERS.decode(text)
    except (ValueError, RecursionError) as error:
        return _why(error)


def _why(error: Exception) -> Unusable:
    if isinstance(error, json.JSONDecodeError):
        return Unusable(NOT_JSON, f"{error.msg} at character {error.pos + 1}")
    return Unusable(NOT_JSON, "nested too deeply")


def too_long(most: int) -> Unusable:
    """The reason to leave out a document of more than `most` bytes."""
    return Unusable(f"longer than {most:,} bytes")
