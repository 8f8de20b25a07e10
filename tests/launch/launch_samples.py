"""What the jobs of `fake_trainer.py` end with, and waiting for them."""

import json
import time
from pathlib import Path

from fake_trainer import next_state

IMAGE = "registry/llm-jax@sha256:" + "0" * 64


def final_state(out) -> str:
    return json.loads((Path(out) / "final.json").read_text())


def undisturbed(steps=40) -> str:
    state = ""
    for step in range(steps):
        state = next_state(state, step)
    return state


def wait_for(condition, seconds=20):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not get there in time"
        time.sleep(0.02)
