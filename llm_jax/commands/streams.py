"""The program's standard streams and its error messages, however it was started."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from llm_jax.config import UserError

LONGEST = 1000
"""Most characters of an error message."""


def prepare() -> None:
    """Opens closed standard streams on the null device: otherwise the next file to be opened would
    get their number, and all output. Characters that a stream's encoding lacks are written as
    `\\u732b`.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            os.set_inheritable(number, True)
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def check_arguments(argv: Sequence[str]) -> None:
    """Raises `UserError` for an argument that is not UTF-8: it could not be stored or printed."""
    for number, word in enumerate(argv, 1):
        try:
            word.encode()
        except UnicodeEncodeError:
            shown = os.fsencode(word)[:100]
            raise UserError(
                f"Argument {number} is {shown!r}, which is not UTF-8: convert the text, or rename "
                "the file."
            ) from None


def check_working_folder() -> None:
    """Raises `UserError` if its path is not UTF-8: libraries could not open its files."""
    with contextlib.suppress(FileNotFoundError):  # it was removed; code that needs it will say so
        here = os.fsencode(Path.cwd())
        if here.decode("utf-8", "ignore").encode() != here:
            raise UserError(
                f"The path of the working folder, {here!r}, is not UTF-8: rename the folder, or "
                "work in another."
            )


def give_up_output() -> None:
    """Discards all further output, so that the end of the program does not fail too."""
    with contextlib.suppress(OSError, ValueError):  # a stream that replaces it has no number
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def complain(sentence: str) -> None:
    """Prints `error: sentence` on one line of bounded length, whatever it quotes, but no secret."""
    from llm_jax.config.secrets import redact  # its patterns take milliseconds to compile

    words = " ".join(redact(sentence).split("\n"))
    line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in words)
    if len(line) > LONGEST:
        line = f"{line[: LONGEST // 2]} … {line[-LONGEST // 2 :]}"
    print(f"error: {line}", file=sys.stderr, flush=True)
