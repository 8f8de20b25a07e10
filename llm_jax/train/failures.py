"""Failures of a run's files as one sentence, without the tracebacks that libraries print."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator
from typing import Any

from llm_jax.config import UserError
from llm_jax.runs.disk_errors import reason


class FileFailure(UserError):
    """A full disk, a lost mount, a missing permission, or a deadline that passed.

    The message names the newest checkpoint.

    Writes that Orbax has started cannot be finished, so the program exits without waiting for them.
    """

    exit_code = 1  # not that of a usage error: a launcher starts the run again
    abandons_threads = True

    def __init__(self, out: str, error: Exception, whole: list[int]) -> None:
        """`whole`: steps of the checkpoints in `out`, newest first."""
        kept = f"its checkpoint {whole[0]} is intact" if whole else "it has no checkpoint yet"
        if isinstance(error, TimeoutError):
            failed = "timed out while it read or wrote a file"
            way_out = "check for slow or hanging storage and hosts"
        else:
            failed, way_out = "could not read or write a file", "free space or fix the disk"
        super().__init__(
            f"The run in {out} {failed} ({reason(error)}); {kept}: {way_out}, then run the same "
            "command again to resume."
        )


class Damaged(UserError):
    """A checkpoint whose files have changed or cannot be read."""

    exit_code = 1  # not that of a usage error


@contextlib.contextmanager
def without_tensorstore_noise() -> Iterator[None]:
    """Keeps TensorStore's threads, and what Orbax leaves unfinished, from printing a traceback each
    when Orbax gives up on reading or writing. The error itself is raised, and said in a sentence.

    After an error they are still running, so the hook is restored only if the block succeeds.
    """
    before = sys.unraisablehook

    def hook(told: Any) -> None:
        closed = told.exc_type is RuntimeError and str(told.exc_value) == "Event loop is closed"
        code = getattr(told.object, "cr_code", None)  # of a coroutine that nobody awaits any more
        if not (closed or (code is not None and "orbax" in code.co_filename)):
            before(told)

    sys.unraisablehook = hook
    yield
    sys.unraisablehook = before


def no_orbax_noise(record: logging.LogRecord) -> bool:
    """A log filter that leaves Orbax only its errors. What its warnings tell of use, a run says
    itself. It logs a traceback per thread for errors that it also raises: those are left out."""
    told = record.levelno < logging.ERROR or record.exc_info
    return not ("orbax" in record.pathname and told)


def no_orbax_tasks(record: logging.LogRecord) -> bool:
    """A log filter for asyncio, which logs the errors of all tasks that Orbax has given up with the
    one whose error it raises."""
    return "orbax" not in record.getMessage()


logging.getLogger("absl").addFilter(no_orbax_noise)
logging.getLogger("asyncio").addFilter(no_orbax_tasks)
