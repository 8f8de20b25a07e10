"""Thirty faults of every kind in one run, and the end is that of the run without any."""

import random

import pytest
from launch_samples import final_state, undisturbed

from llm_jax.launch import job
from llm_jax.launch.supervisor import supervise

KINDS = ("kill", "oom", "raise", "disk", "agent", "freeze", "hang")


@pytest.mark.slow
def test_thirty_faults_change_nothing(make_spec, store):
    dice = random.Random(20261122)
    kinds = [KINDS[i % len(KINDS)] for i in range(30)]
    dice.shuffle(kinds)
    steps = dice.sample(range(1, 40), 30)
    faults = [f"{kind}:{dice.randrange(2)}:{step}" for kind, step in zip(kinds, steps, strict=True)]
    spec = make_spec(",".join(faults), retries=30)
    store(spec)
    outcome = supervise(spec.out, lambda text: None)
    status = job.status(spec.out)
    assert outcome.state == "finished"
    assert len(status["attempts"]) == 31
    named = [a["cause"] for a in status["attempts"][:-1]]
    assert not [cause for cause in named if "lost a peer" in cause]
    assert final_state(spec.out) == undisturbed()
