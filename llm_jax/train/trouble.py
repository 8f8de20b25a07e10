"""What goes wrong with files, in one sentence."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator
from typing import Any

from llm_jax.config import UserError
from llm_jax.runs.trouble import reason


class FileTrouble(UserError):
    """A full disk, a lost mount, a missing right: one sentence that says what survives.

    Writes that Orbax has begun cannot be finished, so the program leaves without waiting for them.
    """

    exit_code = 1  # not that of a wrong usage: a launcher starts it again
    abandons_threads = True

    def __init__(self, out: str, error: Exception, whole: list[int]) -> None:
        """`whole`: steps of the checkpoints in `out`, newest first."""
        kept = f"its checkpoint {whole[0]} is whole" if whole else "it has no checkpoint yet"
        super().__init__(
            f"The run in {out} could not read or write a file ({reason(error)}); {kept}: free "
            "space or mend the disk, then run the same command to go on from there."
        )


class Damaged(UserError):
    """A checkpoint whose files are not those that were written."""

    exit_code = 1  # not that of a wrong usage


@contextlib.contextmanager
def without_tensorstore_noise() -> Iterator[None]:
    """Keeps TensorStore's threads from printing a traceback each when Orbax gives up on a write.

    After an error they are still at it, so that only a block that ends well restores the hook.
    """
    before = sys.unraisablehook

    def hook(told: Any) -> None:
        if not (told.exc_type is RuntimeError and str(told.exc_value) == "Event loop is closed"):
            before(told)

    sys.unraisablehook = hook
    yield
    sys.unraisablehook = before


def no_orbax_noise(record: logging.LogRecord) -> bool:
    """A filter: Orbax logs, with a traceback for each of its threads, the errors that it raises as
    well, and warns whoever opens a folder read-only that it is read-only."""
    told = record.exc_info or record.msg.startswith("Given directory is read only")
    return not ("orbax" in record.pathname and told)
