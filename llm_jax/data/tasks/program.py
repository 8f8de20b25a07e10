"""What the programs of all tasks share: how they end, and the arrays that they write."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from llm_jax.config import UserError
from llm_jax.runs.disk_errors import disk_sentence
from llm_jax.runs.files import replacing


def exit_code(run: Callable[[], None], is_done: Callable[[], bool]) -> int:
    """Runs a task; 2 after a mistake of the user's, 1 where a disk failed; both are said.

    Args:
      is_done: whether the task has been done, by whichever process.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which ends its tasks
    try:
        run()
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        if is_done():
            return 0  # a task that outlived its killed parent was faster, and deleted what it read
        print(disk_sentence(error), file=sys.stderr)
        return 1
    return 0


def load_array(path: Path) -> np.ndarray:
    """An array that `save_array` wrote, as a memory map."""
    return np.load(path, mmap_mode="r", allow_pickle=False)


def save_array(path: Path, array: np.ndarray) -> None:
    with replacing(path) as temporary:
        np.save(temporary, array, allow_pickle=False)
