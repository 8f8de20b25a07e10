"""The save after a request to stop, within the time that the platform gives.

A preempted host is stopped 15 to 120 s after it was told. If the run's earlier saves say that one
more takes longer, the state goes to the hosts' own disks first. Then it is saved in the run's
folder, as far as the time allows. A save that is cut off leaves the checkpoint before it as it was,
since it has a temporary name until it is whole.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

from llm_jax.config.exits import PREEMPTED
from llm_jax.train.checkpoint import Checkpointer
from llm_jax.train.damage import saved_steps
from llm_jax.train.save_speed import save_speed
from llm_jax.train.state import State
from llm_jax.train.stop import Stop

UNEVEN = 1.5
"""A save may take that many times as long as the slowest one that the run keeps."""
TO_LEAVE = 3.0
"""Seconds before the end at which the program leaves by itself. The exit code then says that the
state is saved."""
LAST = 1.0
"""Seconds that process 0 stays longer: the others would take its end for a failure."""


def save_near_first(
    checkpointer: Checkpointer,
    stop: Stop,
    state: State,
    step: int,
    say: Callable[[str], None],
) -> threading.Timer | None:
    """Saves on the hosts' own disks if the save in the run's folder may not end in time, also if
    that has begun already.

    All processes must call it. It does nothing if nothing tells the time, or if it is enough.

    Returns:
      A timer that ends the process with exit code 75 shortly before the platform does, if the state
      is on the hosts' own disks. The caller starts the save in the folder, and cancels the timer
      when that has ended.
    """
    left = stop.left()
    if stop.signal != signal.SIGTERM or left is None:
        return None
    out = Path(checkpointer.config.out).absolute()
    speed = save_speed(out, state)
    needed = UNEVEN * speed.seconds + TO_LEAVE
    if not _first_says(needed > left and step not in saved_steps(out / "checkpoints")):
        return None
    why = (
        f"The save in the run's folder may take {needed:,.0f} s, and {left:,.0f} s are left: "
        f"{speed}."
    )
    if not checkpointer.secure_near(state, step):
        say(
            f"{why} It may be cut off, and the next start then resumes from the checkpoint before. "
            "Checkpoints on the hosts' own disks (checkpoint.local) take less time."
        )
        return None
    say(f"{why} Step {step} was saved on the hosts' own disks first.")
    stays = LAST if jax.process_index() == 0 else 0.0
    timer = threading.Timer(max(0.0, (stop.left() or 0.0) - TO_LEAVE + stays), _leave)
    timer.daemon = True
    timer.start()
    return timer


def _first_says(answer: bool) -> bool:
    """Process 0's answer, in all processes."""
    return bool(multihost_utils.broadcast_one_to_all(np.bool_(answer)))


def _leave() -> None:
    if jax.process_index() == 0:
        print(
            "The save in the run's folder did not end in time. The hosts' own disks have the "
            "state: if all hosts come back, the next start resumes from there, else from the "
            "checkpoint before.",
            file=sys.stderr,
        )
    sys.stderr.flush()
    os._exit(PREEMPTED)
