"""Closed attempts: what follows from all records in few bytes and few requests."""

import dataclasses
import json
import random
from collections import Counter
from pathlib import Path

import pytest

from llm_jax.launch import job
from llm_jax.launch.backends import Resource
from llm_jax.launch.cause import decide, root_cause
from llm_jax.launch.folder import LocalFolder
from llm_jax.launch.history import (
    close,
    closed_attempts,
    condense,
    history,
    next_attempt,
    next_incarnation,
    outcome,
    whole_history,
)
from llm_jax.launch.records import (
    KINDS,
    Attempt,
    ExitRecord,
    attempt_folder,
    attempt_name,
    log_name,
    outside_record,
    record_exit,
    write_json,
)
from llm_jax.launch.supervisor import Supervisor


class Counting(LocalFolder):
    """A folder that counts what a bucket would be asked for."""

    def __init__(self, address):
        super().__init__(address)
        self.count = Counter()

    def read(self, name):
        self.count["read"] += 1
        return super().read(name)

    def names(self, prefix, after=""):
        found = super().names(prefix, after)
        self.count["list"] += 1 + len(found) // 1000
        return found


def record(process, kind, step, time=0.0, sentence="as it was"):
    return ExitRecord(process=process, hostname=f"host-{process}", kind=kind, sentence=sentence,
                      code=1, step=step, phase="step", time=time)  # fmt: skip


def leave(folder, attempt, kinds, step=5):
    """Each host is there, and ends with a record of its kind, None for none."""
    for process, kind in enumerate(kinds):
        write_json(folder, f"{attempt_folder(attempt)}/host.{process}.json", {})
        if kind:
            record_exit(folder, attempt, record(process, kind, step, time=float(process)))


def test_a_condensed_attempt_leads_to_the_same_decision():
    dice = random.Random(0)
    for _ in range(2000):
        past = []
        for number in range(dice.randrange(1, 4)):
            hosts, kinds = dice.randrange(1, 9), dice.sample(KINDS, dice.randrange(1, 4))
            ends = [record(p, dice.choice(kinds), dice.randrange(-1, 4), dice.random())
                    for p in range(hosts) if dice.random() < 0.8]  # fmt: skip
            if ends:
                past.append(Attempt(attempt_name(0, number), tuple(ends), hosts))
        small = [condense(attempt) for attempt in past]
        retries = dice.randrange(3)
        assert decide(small, retries, 5) == decide(past, retries, 5)
        for a, b in zip(past, small, strict=True):
            assert (a.step, a.recorded, a.finished) == (b.step, b.recorded, b.finished)
            assert root_cause(a) == root_cause(b)
            assert {e.kind for e in a.exits} == {e.kind for e in b.exits}
            assert condense(b) == b


def test_the_records_of_many_hosts_in_few_bytes(tmp_path):
    hosts = 400
    folder = LocalFolder(str(tmp_path))
    kinds = ["peer"] * hosts
    kinds[70] = "memory"
    leave(folder, "0000.0000", kinds)
    close(folder, hosts, 0, "0000.0000")
    sizes = {p.name: p.stat().st_size for p in (tmp_path / "launch/closed").iterdir()}
    assert sizes["0000.0000.json"] < 1000
    assert sizes["0000.0000.hosts.json"] < 40 * hosts
    single = (tmp_path / attempt_folder("0000.0000") / "host.0.exit.json").stat().st_size
    assert sizes["0000.0000.hosts.json"] < hosts * single / 4
    (attempt,) = whole_history(folder, hosts, 0)
    assert attempt.exits == tuple(record(p, kind, 5, float(p)) for p, kind in enumerate(kinds))
    (attempt,) = history(folder, hosts, 0)
    assert (attempt.recorded, root_cause(attempt).process) == (hosts, 70)


def test_an_agent_in_the_tenth_attempt_asks_for_three_things(tmp_path):
    hosts = 20
    folder = Counting(str(tmp_path))
    for number in range(10):
        attempt = attempt_name(0, number)
        leave(folder, attempt, ["error"] + ["peer"] * (hosts - 1), step=number)
        close(folder, hosts, 0, attempt)
    folder.count.clear()
    past = history(folder, hosts, 0)
    assert folder.count == {"read": 1, "list": 2}
    assert [(a.name, a.step, a.recorded) for a in past] == [
        (attempt_name(0, n), n, hosts) for n in range(10)
    ]
    assert next_attempt(past, 0) == "0000.0010" and next_attempt(past, 1) == "0001.0000"
    folder.count.clear()
    assert len(outcome(folder, hosts, 0, "0000.0009")) == 10
    assert folder.count == {"read": 1}
    assert next_incarnation(folder) == 1
    # Of a later launch, only what came after its first incarnation counts.
    assert history(folder, hosts, 1) == []


def test_the_first_to_close_counts_and_what_was_left_open_goes_with_it(tmp_path):
    folder = LocalFolder(str(tmp_path))
    leave(folder, "0000.0000", ["killed", "peer"])
    leave(folder, "0000.0001", ["memory", None])
    close(folder, 2, 0, "0000.0001")
    assert closed_attempts(folder) == ["0000.0001"]
    record_exit(folder, "0000.0001", record(1, "config", 5))  # too late
    close(folder, 2, 0, "0000.0001")
    past = history(folder, 2, 0)
    assert [(a.name, a.recorded, root_cause(a).kind) for a in past] == [
        ("0000.0000", 2, "killed"), ("0000.0001", 1, "memory"),
    ]  # fmt: skip
    leave(folder, "0000.0002", ["peer", None])
    assert [a.name for a in history(folder, 2, 0)] == ["0000.0000", "0000.0001", "0000.0002"]


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{}", b'{"attempts": []}', b'{"attempts": [{"attempt": "x"}]}', b"\xff",
     b'{"attempts":[{"attempt":"0000.0001","hosts":2,"recorded":2,"ends":[{"process":"0"}]}]}',
     b'{"attempts":[{"attempt":"0000.0009","hosts":2,"recorded":0,"ends":[]}]}'],
)  # fmt: skip
def test_a_damaged_summary_is_replaced_by_the_records(tmp_path, capsys, content):
    folder = LocalFolder(str(tmp_path))
    for number, kinds in enumerate((["killed", "peer"], ["peer", "disk"])):
        leave(folder, attempt_name(0, number), kinds)
        close(folder, 2, 0, attempt_name(0, number))
    right = decide(history(folder, 2, 0), 1, 5)
    assert right.cause.startswith("host 1: as it was at step 5 (1 restart got no further)")
    (tmp_path / "launch/closed/0000.0001.json").write_bytes(content)
    for _ in range(2):
        assert decide(history(folder, 2, 0), 1, 5) == right
        assert decide(outcome(folder, 2, 0, "0000.0001"), 1, 5) == right
    (tmp_path / "launch/closed/0000.0001.hosts.json").write_bytes(content)
    assert [len(a.exits) for a in whole_history(folder, 2, 0)] == [2, 2]
    said = capsys.readouterr().err.splitlines()
    assert sum("0000.0001.json" in line for line in said) == 1
    assert all(line.startswith("warning: passed over in") for line in said)


def test_a_folder_of_the_older_layout_opens(make_spec, store):
    """Records and logs side by side, nothing closed."""
    spec = make_spec()
    store(spec)
    folder = LocalFolder(spec.out)
    leave(folder, "0000.0000", ["memory", "peer"])
    leave(folder, "0000.0001", ["finished", "finished"])
    folder.append("launch/attempts/0000.0000/host.1.log", b"step 1\nstep 2")
    folder.append(log_name("0000.0001", 1), b"step 3\n")
    status = job.status(spec.out)
    assert [(a["state"], len(a["hosts"]), a["cause"]) for a in status["attempts"]] == [
        ("ended", 2, "host 0: as it was at step 5"), ("finished", 2, ""),
    ]  # fmt: skip
    assert status["state"] == "finished"
    logs = job.Logs(spec.out)
    assert logs.more() == [("0000.0000", 1, "step 1"), ("0000.0000", 1, "step 2"),
                           ("0000.0001", 1, "step 3")]  # fmt: skip
    assert logs.more() == []
    assert next_incarnation(folder) == 1


class Gone:
    """A back end whose hosts are preempted, and not replaced before the test looks."""

    def __init__(self, state, lost=()):
        self.found = Resource(state, "taken away", lost)

    def resource(self):
        return self.found

    def remove(self):
        raise StopIteration


@pytest.mark.parametrize(
    ("state", "lost", "kinds"),
    [
        ("preempted", (), ["peer", "preempted", "preempted"]),
        ("failed", (2,), ["peer", "lost"]),
        ("ended", (), ["peer"]),
    ],
)
def test_the_supervisor_closes_what_the_hosts_cannot(make_spec, store, state, lost, kinds):
    spec = make_spec(slices=3)
    first = store(spec)
    folder = LocalFolder(spec.out)
    leave(folder, "0000.0000", ["peer", None, None])
    write_json(folder, "status.2.json", {"phase": "step", "step": 9, "time": 1.0})
    with pytest.raises(StopIteration):
        Supervisor(spec, first, Gone(state, lost), folder, lambda text: None).run()
    past = outcome(folder, 3, 0, "0000.0000")
    assert [(a.recorded, a.step) for a in past] == [(len(kinds), 9 if len(kinds) > 1 else 5)]
    (attempt,) = job.status(spec.out)["attempts"]
    assert [end["kind"] for end in attempt["hosts"]] == kinds
    assert not list(Path(spec.out).glob("launch/attempts/*/host.2.exit.json"))


def test_the_supervisor_closes_an_attempt_that_the_agents_left_open(make_spec, store):
    spec = make_spec()
    first = store(spec)
    folder = LocalFolder(spec.out)
    leave(folder, "0000.0000", ["killed", "peer"])
    lines = []

    def sleep(seconds):
        raise StopIteration

    with pytest.raises(StopIteration):
        Supervisor(spec, first, Gone("running"), folder, lines.append, sleep=sleep).run()
    assert closed_attempts(folder) == ["0000.0000"]
    assert "attempt 0000.0000: host 0: as it was at step 5" in lines


def test_unknown_hosts_in_a_summary_do_not_count(tmp_path):
    """As after a relaunch on fewer hosts, with a record that names a host beyond."""
    folder = LocalFolder(str(tmp_path))
    record_exit(folder, "0000.0000", outside_record(7, "lost", "gone", None))
    leave(folder, "0000.0000", ["killed", "peer"])
    close(folder, 2, 0, "0000.0000")
    raw = json.loads((tmp_path / "launch/closed/0000.0000.json").read_bytes())
    assert [end["process"] for end in raw["attempts"][0]["ends"]] == [0, 1]
    assert dataclasses.replace(history(folder, 2, 0)[0], condensed=0).recorded == 2
