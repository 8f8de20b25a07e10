"""What a worker process of Ray runs: one task, in that process, which then ends."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import socket
from pathlib import Path

from llm_jax.runs.tasks import ONE_CORE, SAID


def run_task(module: str, words: tuple[str, ...], directory: str) -> tuple[int, str]:
    """Calls `main(words)` of `module`; returns its exit code, and what it wrote to standard error.

    The task is no child process: what Ray kills for the memory that it takes is then the task.

    Args:
      directory: where relative paths begin, if the node has it; else it finds no such file.
    """
    os.environ.update(ONE_CORE)
    if Path(directory).is_dir():
        os.chdir(directory)
    if not Path(words[0]).is_dir():
        node = socket.gethostname()
        return 1, f"{words[0]} is not on the node {node}: give --out where all nodes see it."
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        code = importlib.import_module(module).main(list(words))
    return code, said.getvalue()[-SAID:]
