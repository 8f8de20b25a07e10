"""Several processes as one run: how they join, and how all leave at once when one is lost.

By default in JAX, the other processes live for 92 s after one is killed (measured on CPU with
Gloo). With a heartbeat of 10 s and an exit without the final barrier, they end within a second.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator

import jax
import numpy as np
from jax.experimental import multihost_utils

from llm_jax.config import UserError
from llm_jax.config.exits import FAILED, PEER_LOST
from llm_jax.runs.claim import Held

HEARTBEAT_SECONDS = 10
MOST_BYTES = 1024
"""Of what a process tells the others (`all_say`)."""
# Words in JAX's errors when another process caused them (coordination service, Gloo, NCCL).
PEER_SIGNS = re.compile(
    r"heartbeat|coordination service|connection (reset|closed|refused)|gloo|NCCL|"
    r"DEADLINE_EXCEEDED|UNAVAILABLE",
    re.IGNORECASE,
)


def join() -> None:
    """Joins the processes of the run that the environment describes, if it describes one.

    The launcher sets `JAX_COORDINATOR_ADDRESS`, `JAX_NUM_PROCESSES` and `JAX_PROCESS_ID`.
    """
    address = os.environ.get("JAX_COORDINATOR_ADDRESS")
    if address:
        jax.distributed.initialize(
            address,
            num_processes=int(os.environ["JAX_NUM_PROCESSES"]),
            process_id=int(os.environ["JAX_PROCESS_ID"]),
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        )


def is_peer_lost(error: BaseException) -> bool:
    """Whether `error` comes from a collective or a barrier that another process has left.

    Orbax calls whatever ends a barrier a time-out. Its cause says whether it was one, or whether
    the barrier failed because a process was lost.
    """
    if jax.process_count() == 1:
        return False
    if isinstance(error, TimeoutError):
        cause = error.__cause__
        return isinstance(cause, RuntimeError) and "DEADLINE_EXCEEDED" not in str(cause)
    return isinstance(error, (RuntimeError, ValueError)) and bool(PEER_SIGNS.search(str(error)))


def wait_for_all(what: str) -> None:
    """Returns when every process has called this with the same `what`."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(what)


def first_asks(ask: Callable[[], bool]) -> bool:
    """Process 0's answer to `ask`, in all processes. If it raises `Held`, all raise it."""
    if jax.process_count() == 1:
        return ask()
    answer = np.zeros(4096, np.uint8)
    if jax.process_index() == 0:
        try:
            answer[0] = ask()
        except Held as error:
            words = np.frombuffer(str(error).encode()[: len(answer) - 1], np.uint8)
            answer[1 : 1 + len(words)] = words
    answer = np.asarray(multihost_utils.broadcast_one_to_all(answer))
    sentence = answer[1:].tobytes().rstrip(b"\0").decode(errors="ignore")
    if sentence:
        raise Held(sentence)
    return bool(answer[0])


def all_say(words: str) -> list[str]:
    """What each process says, in all processes, by the number of the process. All call it alike; of
    long words, the first `MOST_BYTES` bytes arrive."""
    if jax.process_count() == 1:
        return [words]
    ours = np.zeros(MOST_BYTES, np.uint8)
    said = np.frombuffer(words.encode()[:MOST_BYTES], np.uint8)
    ours[: len(said)] = said
    every = np.asarray(multihost_utils.process_allgather(ours))
    return [row.tobytes().rstrip(b"\0").decode(errors="ignore") for row in every]


def leave(code: int) -> None:
    """Leaves the other processes. All processes call it at the end of the run.

    The interpreter's own clean-up takes seconds on a busy host, and a grace period may end during
    it. So with several processes the clean-up is skipped, and the exit code is `code`.
    """
    if jax.process_count() == 1:
        return
    jax.distributed.shutdown()

    def end() -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    atexit.register(end)


@contextlib.contextmanager
def leaving_at_once() -> Iterator[None]:
    """With several processes, an error ends this process without waiting at a barrier.

    Exit codes: 76 if another process was lost, the exit code of a `UserError`, 1 for all others.
    """
    try:
        yield
    except BaseException as error:
        if jax.process_count() == 1:
            raise
        if isinstance(error, UserError):
            print(f"error: {error}", file=sys.stderr)
            code = error.exit_code
        else:
            traceback.print_exc()
            code = PEER_LOST if is_peer_lost(error) else FAILED
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
