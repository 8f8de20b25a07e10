"""Several processes as one run: joining them, and leaving at once when one is lost.

What JAX does by itself (measured on CPU with Gloo): survivors of a killed process linger for 92 s;
with a heartbeat of 10 s and an exit that skips the closing barrier they are gone in a second.
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
from llm_jax.runs.claim import Held

EXIT_PEER_LOST = 76
HEARTBEAT_SECONDS = 10
# What JAX's errors say when another process is to blame (coordination service, Gloo, NCCL).
PEER_SIGNS = re.compile(
    r"heartbeat|coordination service|connection (reset|closed|refused)|gloo|NCCL|"
    r"DEADLINE_EXCEEDED|UNAVAILABLE",
    re.IGNORECASE,
)


def join() -> None:
    """Joins the gang that the environment names, if it names one.

    `JAX_COORDINATOR_ADDRESS` with `JAX_NUM_PROCESSES` and `JAX_PROCESS_ID` (set by the launcher),
    or a cluster that JAX detects by itself (Cloud TPU, GKE, Slurm) under `LLM_JAX_DISTRIBUTED=1`.
    """
    address = os.environ.get("JAX_COORDINATOR_ADDRESS")
    if address:
        jax.distributed.initialize(
            address,
            num_processes=int(os.environ["JAX_NUM_PROCESSES"]),
            process_id=int(os.environ["JAX_PROCESS_ID"]),
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        )
    elif os.environ.get("LLM_JAX_DISTRIBUTED") == "1":
        jax.distributed.initialize(heartbeat_timeout_seconds=HEARTBEAT_SECONDS)


def is_peer_lost(error: BaseException) -> bool:
    """Whether the error is that of a collective, or of a barrier, that another process has left."""
    several = jax.process_count() > 1
    return several and isinstance(error, RuntimeError) and bool(PEER_SIGNS.search(str(error)))


def wait_for_all(what: str) -> None:
    """Returns when every process has come to the call of that name."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(what)


def first_asks(ask: Callable[[], bool]) -> bool:
    """Process 0's answer to `ask`, in all processes; and if it raises `Held`, that too."""
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


def leave(code: int) -> None:
    """Takes leave of the other processes, all of which call this when nothing is left to do.

    What the interpreter tears down after that takes seconds on a busy host, in which a grace period
    runs out; with several processes it is left to the kernel, and the exit code is `code`.
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
    """With several processes, an error ends this one without waiting for the others at a barrier.

    Exit codes: 76 if another process was lost, the code of a `UserError`, 1 for anything else.
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
            code = EXIT_PEER_LOST if is_peer_lost(error) else 1
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
