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
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import NamedTuple, NoReturn, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from llm_jax.config import ConfigError, UserError
from llm_jax.config.exits import FAILED, PEER_LOST
from llm_jax.runs.claim import Held

HEARTBEAT_SECONDS = 10
JOIN_SECONDS = 300
"""For which a process waits until all have come."""
TELL_SECONDS = 60
"""The same of a process that only tells the others why it cannot take part."""
LEAVE_SECONDS = 1.0
"""For which process 0, whose end is noticed by all, lets the others leave first."""
MOST_BYTES = 1024
"""Of what a process tells the others (`all_say`)."""
T = TypeVar("T")
# Words in JAX's errors when another process caused them (coordination service, Gloo, NCCL).
PEER_SIGNS = re.compile(
    r"heartbeat|coordination service|connection (reset|closed|refused)|gloo|NCCL|"
    r"DEADLINE_EXCEEDED|UNAVAILABLE",
    re.IGNORECASE,
)


class Gang(NamedTuple):
    """What the environment says of the processes of the run.

    Attributes:
      address: of process 0, with the port that it listens on.
      processes: how many there are.
      number: of this one, from 0.
    """

    address: str
    processes: int
    number: int


class PeerFailed(UserError):
    """Another process of the run cannot start; the exit code is that process's."""

    def __init__(self, number: int, said: str) -> None:
        code, _, sentence = said.partition(" ")
        super().__init__(f"Process {number} cannot start: {sentence}")
        self.exit_code = int(code)


def gang() -> Gang | None:
    """The processes that the environment describes; None if it describes none.

    The launcher sets `JAX_COORDINATOR_ADDRESS`, `JAX_NUM_PROCESSES` and `JAX_PROCESS_ID`.

    Raises:
      ConfigError: a variable is missing, or is not a number that can be.
    """
    address = os.environ.get("JAX_COORDINATOR_ADDRESS")
    if not address:
        return None
    words = {name: os.environ.get(name, "") for name in ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID")}
    for name, word in words.items():
        if not (word.isascii() and word.isdecimal()):
            raise ConfigError(
                f"JAX_COORDINATOR_ADDRESS is {address!r}, and {name} is {word!r}: set it to a "
                "whole number, or unset both for a run of one process."
            )
    count, number = map(int, words.values())
    if number >= count:
        raise ConfigError(
            f"JAX_PROCESS_ID is {number} and JAX_NUM_PROCESSES is {count}: number the processes "
            f"from 0 to {count - 1}."
        )
    return Gang(address, count, number)


def join(seconds: int = JOIN_SECONDS, code: int = PEER_LOST) -> None:
    """Joins the processes of the run that the environment describes, if it describes one.

    If they have not all come within so many `seconds`, a sentence says so, and this process ends
    with the exit `code`: JAX would abort it.

    Raises:
      ConfigError: the environment contradicts itself.
    """
    found = gang()
    if found is None:
        return
    late = threading.Timer(seconds, _not_met, (found, seconds, code))
    late.daemon = True
    late.start()
    try:
        jax.distributed.initialize(
            found.address,
            num_processes=found.processes,
            process_id=found.number,
            initialization_timeout=2 * seconds,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        )
    finally:
        late.cancel()


def _not_met(found: Gang, seconds: int, code: int) -> NoReturn:
    print(
        f"error: Only some of the {found.processes} processes of the run came to {found.address} "
        f"within {seconds} s (process {found.number} did): start the same command on every host.",
        file=sys.stderr,
    )
    _end(code, found.number)


def tell(sentence: str, code: int) -> None:
    """Tells the other processes why this one cannot take part, and ends it with the exit `code`.

    Returns if there are none, or if it is one of them already.
    """
    try:
        found = gang()
    except ConfigError:
        return
    if found is None or found.processes == 1 or jax.distributed.is_initialized():
        return
    print(
        f"telling the other processes of the run, for at most {TELL_SECONDS} s",
        file=sys.stderr,
        flush=True,
    )
    try:
        join(TELL_SECONDS, code)
        all_say(_told(sentence, code))
    except RuntimeError as error:
        print(f"they could not be told: {error}", file=sys.stderr)
    _end(code, found.number)


def all_pass(check: Callable[[], T]) -> T:
    """What `check` returns. If it raises an error in any process, it is raised there, and all
    others raise `PeerFailed` with its sentence and exit code, in place of waiting for that one.

    All processes call it alike. `check` does not wait for other processes.
    """
    if jax.process_count() == 1:
        return check()
    try:
        passed = check()
    except Exception as error:
        with contextlib.suppress(RuntimeError):  # others may be lost: this error says more
            all_say(_told(*_words(error)))
        raise
    for number, said in enumerate(all_say("")):
        if said:
            raise PeerFailed(number, said)
    return passed


def _words(error: Exception) -> tuple[str, int]:
    """An error's sentence and exit code."""
    if isinstance(error, UserError):
        return str(error), error.exit_code
    return f"{type(error).__name__}: {error}", FAILED


def _told(sentence: str, code: int) -> str:
    """As `PeerFailed` reads it."""
    return f"{code} {sentence}"


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


def first_says(words: str) -> str:
    """What process 0 says, in all processes, however long it is. All call it alike."""
    if jax.process_count() == 1:
        return words
    said = np.frombuffer(words.encode(), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(said))))
    held = np.zeros(-(-size // MOST_BYTES) * MOST_BYTES, np.uint8)
    if jax.process_index() == 0:
        held[:size] = said
    return np.asarray(multihost_utils.broadcast_one_to_all(held))[:size].tobytes().decode()


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
        _end(code, jax.process_index())


def _end(code: int, number: int) -> NoReturn:
    """Ends this process, of that `number`, without clean-up, which would wait for the others."""
    sys.stdout.flush()
    sys.stderr.flush()
    if number == 0:
        time.sleep(LEAVE_SECONDS)
    os._exit(code)
