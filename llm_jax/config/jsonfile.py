"""JSON files, read strictly: one that is damaged, hostile or too large is refused in a sentence.

All JSON is read here, except the text of a corpus.
"""

from __future__ import annotations

import json
import os
import stat
from typing import Any, BinaryIO

from llm_jax.config.errors import UserError

MOST_BYTES = 64 << 20
"""Largest file that is read: a law file has 100 KB, the metrics of a week's run 50 MB."""
DEEPEST = 100
"""Most levels of nesting; printing and storing the value recurse too."""
MOST_BITS = 1024
"""Most bits of a whole number; a larger one does not fit in a float either."""


def read_json(path: str | os.PathLike[str]) -> Any:
    """The value in the JSON file `path`.

    Raises:
      UserError: there is no such file, or `read_text` or `parse_json` refuses it.
    """
    return parse_json(read_text(path), str(path))


def read_text(path: str | os.PathLike[str], most_bytes: int = MOST_BYTES) -> str:
    """The UTF-8 text in the file `path`, without a byte order mark.

    Raises:
      UserError: it cannot be opened, `read_bytes` refuses it, or it is not UTF-8.
    """
    try:
        data = read_bytes(path, most_bytes)
    except (OSError, ValueError) as error:  # a NUL byte in the path is a ValueError
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"{path} cannot be read ({reason}): check the path.") from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not UTF-8 (byte {error.start:,}): convert it, or check the path."
        ) from None


def read_bytes(path: str | os.PathLike[str], most_bytes: int = MOST_BYTES) -> bytes:
    """The content of the file `path`.

    Raises:
      UserError: it is not a regular file (a pipe or a device may have no end), or is larger than
        `most_bytes`.
      OSError: it cannot be opened.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most_bytes:
            raise UserError(
                f"{path} has {size:,} bytes, but such a file has at most {most_bytes:,}: check the "
                "path."
            )
        return file.read(most_bytes)


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """The file `path`, opened to be read; raises as `read_bytes` does."""
    file = open(path, "rb", opener=_at_once)  # noqa: SIM115
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise UserError(f"{path} is not a regular file: give a file.")
    return file


def _at_once(path: str, flags: int) -> int:
    """Opens without waiting, even a pipe that nobody writes to."""
    return os.open(path, flags | os.O_NONBLOCK)


def parse_json(text: str | bytes, name: str) -> Any:
    """The value of the JSON `text`, which errors call `name`.

    Raises:
      UserError: it is not JSON, names a field twice, is nested deeper than `DEEPEST` levels, or
        holds a number of more than `MOST_BITS` bits or text that is not Unicode.
    """
    try:
        value = json.loads(text, object_pairs_hook=lambda pairs: _object(pairs, name))
    except RecursionError:
        raise UserError(f"{name} is nested deeper than {DEEPEST} levels: fix it.") from None
    except ValueError as error:  # also bytes that are not UTF-8, and numbers of over 4300 digits
        raise UserError(f"{name} is not JSON ({_first_sentence(error)}): fix it.") from None
    _check(value, name)
    return value


def _object(pairs: list[tuple[str, Any]], name: str) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise UserError(f"{name} has the field {twice!r} twice: keep one.")
    for key, value in pairs:
        _check_number(value, f"{name} has in the field {key!r}")
    return made


def _check_number(value: Any, has: str) -> None:
    if isinstance(value, int) and value.bit_length() > MOST_BITS:
        raise UserError(f"{has} a number of {len(str(value))} digits: fix it.")


def _first_sentence(error: ValueError) -> str:
    return str(error).split(";")[0]


def _check(value: Any, name: str) -> None:
    """Level by level, since recursion is what it guards against."""
    level, depth = [value], 0
    while level:
        inner: list[Any] = []
        for one in level:
            if depth == DEEPEST and isinstance(one, dict | list):
                raise UserError(f"{name} is nested deeper than {DEEPEST} levels: fix it.")
            if isinstance(one, dict):
                inner += [*one, *one.values()]
            elif isinstance(one, list):
                inner += one
            elif isinstance(one, int):
                _check_number(one, f"{name} holds")
            elif isinstance(one, str) and not (one.isascii() or _is_unicode(one)):
                raise UserError(f"{name} holds {one[:40]!a}, which is not Unicode: fix it.")
        level, depth = inner, depth + 1


def _is_unicode(text: str) -> bool:
    """Whether `text` has no lone surrogate."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def require_shape(value: Any, shape: Any, where: str = "it") -> None:
    """Checks that parsed JSON has a shape.

    A shape is a type, `[shape]` for a list of any length, `{str: shape}` for an object with any
    names, or an object with the shape of each required field. A field of shape `(shape,)` may be
    null or missing. Whole numbers must not be negative.

    Raises:
      UserError: it does not; the sentence names the field.
    """
    if isinstance(shape, tuple):
        if value is not None:
            require_shape(value, shape[0], where)
        return
    if shape is float and isinstance(value, int):
        shape = int
    if isinstance(shape, type):
        right = isinstance(value, shape) and (shape is bool or not isinstance(value, bool))
        if not right or (shape is int and value < 0):
            kind = "whole number of at least 0" if shape is int else shape.__name__
            raise UserError(f"{where} is {value!r}, not a {kind}")
        return
    require_shape(value, type(shape), where)
    if isinstance(shape, list):
        for place, one in enumerate(value):
            require_shape(one, shape[0], f"{where}[{place}]")
        return
    named = dict.fromkeys(value, shape[str]) if str in shape else shape
    for name, inner in named.items():
        if name not in value and not isinstance(inner, tuple):
            raise UserError(f"{where} has no {name!r}")
        require_shape(value.get(name), inner, name if where == "it" else f"{where}.{name}")
