"""The local back end end to end: real supervisor, real agents, real faults, a small trainer."""

import json
import re
import threading
from pathlib import Path

import pytest
from launch_samples import final_state, undisturbed, wait_for

from llm_jax.config import UserError
from llm_jax.launch import job
from llm_jax.launch.backends import local
from llm_jax.launch.supervisor import supervise


def quiet(text):
    """Where the supervisor's lines go."""


def launch(spec, store, say=quiet):
    store(spec)
    outcome = supervise(spec.out, say)
    return outcome, job.status(spec.out)


def logs(spec):
    return "\n".join(line for _, _, line in job.Logs(spec.out).more())


def test_a_gang_finishes_and_leaves_nothing(make_spec, store):
    spec = make_spec()
    outcome, status = launch(spec, store)
    assert (outcome.state, status["state"], status["cause"]) == ("finished", "finished", "")
    assert [a["step"] for a in status["attempts"]] == [40]
    assert final_state(spec.out) == undisturbed()
    assert local.Driver(spec).billable() == []
    assert "process 1 begins at step 0" in logs(spec)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("faults", "cause"),
    [
        ("kill:1:7", "host 1: killed by SIGKILL at step 7"),
        ("kill:0:23", "host 0: killed by SIGKILL at step 23"),
        ("oom:1:12", "host 1: out of memory at step 12"),
        ("raise:0:3", "host 0: ValueError: the loss is not a number at step 3"),
        ("disk:1:9", "host 1: no space left on device at step 9"),
        ("freeze:1:13", "host 1: the process was frozen (SIGSTOP) at step 13"),
        ("agent:1:17", "host 1: its agent ended (killed by SIGKILL)"),
    ],
)
def test_a_fault_is_named_and_survived(make_spec, store, faults, cause):
    spec = make_spec(faults)
    lines = []
    outcome, status = launch(spec, store, lines.append)
    assert outcome.state == "finished"
    assert [a["cause"] for a in status["attempts"]] == [cause, ""]
    assert any(cause in line for line in lines)
    assert final_state(spec.out) == undisturbed()


@pytest.mark.slow
def test_a_hang_leaves_the_stacks_in_the_log(make_spec, store):
    """Of hosts that wait for each other in step 4, nobody can say which one hung first."""
    spec = make_spec("hang:1:4")
    outcome, status = launch(spec, store)
    cause = status["attempts"][0]["cause"]
    assert outcome.state == "finished" and final_state(spec.out) == undisturbed()
    assert re.fullmatch("host [01]: no progress in phase step for 1 s at step 4", cause)
    assert 'fake_trainer.py", line' in logs(spec) and "in fault" in logs(spec)


@pytest.mark.slow
def test_retries_count_only_without_progress(make_spec, store):
    faults = ",".join(f"raise:0:{step}" for step in (6, 12, 18, 24, 30))
    outcome, status = launch(make_spec(faults, retries=1), store)
    assert outcome.state == "finished"
    assert [a["step"] for a in status["attempts"]] == [6, 12, 18, 24, 30, 40]


@pytest.mark.slow
def test_a_crash_loop_stops_with_its_cause(make_spec, store):
    outcome, status = launch(make_spec("oom:1:12!", retries=2), store)
    expected = "host 1: out of memory at step 12 (2 restarts got no further)"
    assert (outcome.state, outcome.cause) == ("failed", expected)
    assert (status["state"], len(status["attempts"])) == ("failed", 3)


def test_a_configuration_error_is_never_retried(make_spec, store):
    outcome, status = launch(make_spec("config:1:0!"), store)
    assert outcome.state == "failed"
    assert outcome.cause == "host 1: data.path is 'nowhere': there is no such folder"
    assert len(status["attempts"]) == 1


def in_background(spec):
    outcomes = []
    thread = threading.Thread(target=lambda: outcomes.append(supervise(spec.out, quiet)))
    thread.start()
    return thread, outcomes


@pytest.mark.slow
def test_stop_saves_and_run_goes_on_from_there(make_spec, store):
    spec = make_spec(env={"FAKE_STEP_SECONDS": "0.1"})
    store(spec)
    thread, outcomes = in_background(spec)
    wait_for(lambda: job.status(spec.out)["step"] >= 6)
    result = job.stop(spec.out, quiet)
    thread.join()
    assert (result["state"], result["billable"]) == ("stopped", [])
    assert outcomes[0].state == "stopped"
    step, _ = json.loads((Path(spec.out) / "checkpoint.json").read_text())
    assert 6 <= step < 40
    assert job.stop(spec.out, quiet) == result  # a second stop changes nothing
    outcome, _ = launch(make_spec(), store)
    assert outcome.state == "finished" and final_state(spec.out) == undisturbed()
    assert f"process 1 begins at step {step}" in logs(spec)


@pytest.mark.slow
def test_only_one_supervisor(make_spec, store):
    spec = make_spec(env={"FAKE_STEP_SECONDS": "0.05"})
    store(spec)
    thread, outcomes = in_background(spec)
    wait_for(lambda: job.status(spec.out)["state"] == "running")
    with pytest.raises(UserError, match=r"supervised already on .* by process"):
        supervise(spec.out, quiet)
    thread.join()
    assert outcomes[0].state == "finished"


@pytest.mark.slow
def test_a_missing_host_is_named(make_spec, store, monkeypatch):
    def all_but_the_last(spec, incarnation):
        return render(spec, incarnation)[:-1]

    render = local.render
    monkeypatch.setattr(local, "render", all_but_the_last)
    spec = make_spec(slices=3, retries=0, rendezvous_seconds=1, grace_seconds=0.5)
    store(spec)
    outcome = supervise(spec.out, quiet)
    assert outcome.cause.startswith("after 1 s host 2 of 3 had not started")


@pytest.mark.slow
def test_a_supervisor_takes_over_running_agents(make_spec, store):
    spec = make_spec(env={"FAKE_STEP_SECONDS": "0.05"})
    store(spec)
    back = local.Driver(spec)
    for action in back.render(0):  # as a supervisor did that has since died
        back.apply(action)
    outcome = supervise(spec.out, quiet)
    assert outcome.state == "finished" and len(job.status(spec.out)["attempts"]) == 1
    assert back.billable() == []
