"""What goes wrong with files, in one sentence."""

from __future__ import annotations

import logging
import os
import re

from llm_jax.config import UserError


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


def reason(error: BaseException) -> str:
    """What the system says in one line, such as "No space left on device"."""
    if type(error) is Exception and error.__cause__:  # Orbax's wrapper around TensorStore's error
        error = error.__cause__
    code = re.search(r"os_error_code='(\d+)'", str(error))  # TensorStore's way to pass an errno on
    if isinstance(error, OSError) or code is None:
        return " ".join(str(error).split())[:200]
    return os.strerror(int(code[1]))


def no_orbax_noise(record: logging.LogRecord) -> bool:
    """A filter: Orbax logs, with a traceback for each of its threads, the errors that it raises as
    well, and warns whoever opens a folder read-only that it is read-only."""
    told = record.exc_info or record.msg.startswith("Given directory is read only")
    return not ("orbax" in record.pathname and told)
