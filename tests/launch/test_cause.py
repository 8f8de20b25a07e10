"""Root causes and decisions: pure functions over records."""

import pytest

from llm_jax.launch.cause import classify, decide, root_cause, sentence
from llm_jax.launch.records import Attempt, ExitRecord
from llm_jax.launch.spec import Limits
from llm_jax.launch.watchdog import Watchdog


def end(process, kind, step=10, time=0.0, words="x"):
    return ExitRecord(process=process, hostname="h", kind=kind, sentence=words, code=1, step=step,
                      phase="step", time=time)  # fmt: skip


def attempt(*exits, number=0, hosts=None):
    return Attempt(f"0000.{number:04d}", exits, hosts or len(exits))


@pytest.mark.parametrize(
    ("code", "log", "kind", "words"),
    [
        (0, "", "finished", "finished"),
        (75, "", "preempted", "told to stop, state saved"),
        (76, "anything", "peer", "lost a peer"),
        (78, "x\nerror: data.path is 'x': build it.\n", "config", "data.path is 'x': build it"),
        (1, "jaxlib.XlaRuntimeError: RESOURCE_EXHAUSTED: HbmOom", "memory", "out of memory"),
        (1, "OSError: [Errno 28] No space left on device", "disk", "no space left on device"),
        (1, "Traceback\nValueError: bad batch\n", "error", "ValueError: bad batch"),
        (1, "a room\nKeyError: 'zoom'\n", "error", "KeyError: 'zoom'"),
        (-6, "F1 client.h] Coordination service: heartbeat timeout", "peer", "lost a peer"),
        (1, "XlaRuntimeError: UNAVAILABLE: Connection reset by peer", "peer", "lost a peer"),
        (-40, "", "killed", "killed by signal 40"),
        (-9, "step 3", "killed", "killed by SIGKILL"),
        (-11, "step 3", "killed", "killed by SIGSEGV"),
        (3, "step 3", "error", "exit code 3"),
    ],
)
def test_classify(code, log, kind, words):
    assert classify(code, log) == (kind, words)


def test_the_cause_stands_behind_63_symptoms():
    exits = [end(p, "peer", time=p) for p in range(64) if p != 3]
    exits.insert(3, end(3, "memory", step=1200, time=99.0, words="out of memory"))
    cause = root_cause(attempt(*exits))
    assert sentence(cause) == "host 3: out of memory at step 1200"


def test_of_equal_kinds_the_earliest_step_counts():
    cause = root_cause(attempt(end(0, "hang", 12), end(1, "hang", 11), end(2, "hang", 12)))
    assert cause.process == 1


def failing(step, number, kind="error"):
    return attempt(end(0, kind, step), end(1, "peer", step), number=number)


def test_retries_are_counted_from_the_last_progress():
    history = [failing(10, 0), failing(10, 1), failing(20, 2), failing(20, 3), failing(15, 4)]
    assert decide(history, 3, 5).action == "retry"
    stopped = decide([*history, failing(20, 5)], 3, 5)
    assert stopped.action == "stop" and "3 restarts got no further" in stopped.cause


def test_waits_double_up_to_five_minutes():
    waits = [decide([failing(1, i) for i in range(n)], 99, 5).wait for n in range(1, 11)]
    assert waits == [0, 5, 10, 20, 40, 80, 160, 300, 300, 300]


def test_preemptions_never_count():
    history = [failing(5, i, kind="preempted") for i in range(50)]
    assert decide(history, 0, 5).action == "retry"


def test_a_finished_and_a_configured_wrong_job_are_over():
    assert decide([attempt(end(0, "finished"), end(1, "finished"))], 3, 5).action == "finished"
    assert decide([attempt(end(0, "finished"), hosts=2)], 3, 5).action == "retry"
    assert decide([failing(1, 0, kind="config")], 3, 5).action == "stop"


def test_each_phase_has_its_own_limit():
    watch = Watchdog(Limits(startup=10, compile=100, step=5), now=0)
    assert not watch.hung(10) and watch.hung(10.1)
    watch.observe({"phase": "compile", "step": 0}, 10)
    assert not watch.hung(110) and watch.hung(110.1)
    watch.observe({"phase": "step", "step": 1}, 111)
    watch.observe({"phase": "step", "step": 2}, 115)
    assert not watch.hung(120)
    watch.observe({"phase": "step", "step": 2}, 119)  # the same again is no progress
    assert watch.hung(120.1)
    watch.observe({"phase": "a new phase", "step": 2}, 121)
    assert watch.limit() == 1800


def test_a_limit_waits_for_three_reports():
    watch = Watchdog(Limits(startup=10, step=300), now=0, reports=64)
    assert watch.limit() == 192 and not watch.hung(192) and watch.hung(192.1)
    watch.observe({"phase": "step", "step": 1}, 200)
    assert watch.limit() == 300
