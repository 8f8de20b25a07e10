"""Strangers' and damaged files in a job's folder: reported once, passed over, never a traceback."""

import json
import os
from pathlib import Path

import pytest

from llm_jax.cli import main
from llm_jax.launch import job
from llm_jax.launch.folder import LocalFolder
from llm_jax.launch.history import history, next_attempt, next_incarnation
from llm_jax.launch.lease import Lease, is_supervised
from llm_jax.launch.records import (
    attempts,
    outside_record,
    record_exit,
)
from llm_jax.launch.supervisor import supervise

NESTED = "[" * 100_000
CONTENTS = {
    "empty": b"", "nul": b"\0" * 64, "nested": NESTED.encode(), "no utf-8": b"\xff\xfe{}",
    "list": b"[1, 2]", "number": b"7", "null": b"null", "object": b"{}", "text": b'"x"',
    "half": b'{"process": 0, "ki', "twice": b'{"a": 1, "a": 2}', "huge": b"9" * 5000,
    "other types": json.dumps({"process": "0", "hostname": 1, "kind": "?", "sentence": None,
                               "code": [], "step": 2.5, "phase": {}, "time": "now"}).encode(),
    "too much": json.dumps({"id": "x", "pids": {"a": "b"}, "hostname": None, "spec": 5, "first": 0,
                            "phase": "step", "step": 1e400, "time": "x", "released": 0}).encode(),
}  # fmt: skip
STRAYS = [
    "launch/leases/zz.json", "launch/leases/notes.txt", "launch/leases/0000001.json",
    "launch/leases/sub/000001.json", "launch/attempts/zz", "launch/attempts/README.exit.json",
    "launch/attempts/zz/host.0.exit.json", "launch/attempts/0000.0000/core",
    "launch/attempts/0000.0000/host.x.exit.json", "launch/attempts/9999/host.0.exit.json",
    "launch/closed/zz.json", "launch/closed/0000.0000.txt", "launch/closed/0000.0000.host.json",
]  # fmt: skip
DAMAGED = [
    "launch/leases/000000.json", "launch/attempts/0000.0000/host.0.exit.json",
    "launch/attempts/0000.0000/host.0.json", "launch/closed/0000.0000.json",
    "launch/closed/0000.0000.hosts.json", "launch/news/0000.0000.json", "status.0.json",
    "status.1.json", "metrics.jsonl", "run.json", "plan.json", "launch/local.json",
]  # fmt: skip


def put(spec, name, data):
    path = Path(spec.out) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def with_an_end(spec):
    """An attempt of which host 1 has left a record."""
    record = outside_record(1, "killed", "killed by SIGKILL", {"step": 3, "phase": "step"})
    record_exit(LocalFolder(spec.out), "0000.0000", record)


def looked_at(spec, capsys):
    """What the verbs that look print; each ends well, or with one sentence."""
    printed = []
    for verb in ("status", "logs"):
        try:
            main(["launch", verb, spec.out])
        except SystemExit as end:
            shown = capsys.readouterr()
            assert "Traceback" not in shown.err and "internal error" not in shown.err, shown.err
            assert end.code in (0, 2, 78), shown.err
            printed.append((end.code, shown.out, shown.err))
    return printed


@pytest.mark.parametrize("name", STRAYS)
def test_a_strangers_file_changes_nothing(make_spec, store, capsys, name):
    spec = make_spec()
    store(spec)
    with_an_end(spec)
    before = looked_at(spec, capsys)
    put(spec, name, NESTED.encode())
    after = looked_at(spec, capsys)
    assert [(code, out) for code, out, _ in after] == [(code, out) for code, out, _ in before]
    assert name in "".join(err for _, _, err in after)
    assert next_incarnation(LocalFolder(spec.out)) == 1
    assert next_attempt(history(LocalFolder(spec.out), 2, 0), 0) == "0000.0001"
    Lease(LocalFolder(spec.out)).release()


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_is_passed_over(make_spec, store, name):
    spec = make_spec()
    store(spec)
    with_an_end(spec)
    for content in CONTENTS.values():
        put(spec, name, content)
        assert job.status(spec.out)["job"] == "fake"
        assert job.Logs(spec.out).more() == []
        is_supervised(LocalFolder(spec.out))


def test_a_damaged_record_is_reported_once(make_spec, store, capsys):
    spec = make_spec()
    store(spec)
    put(spec, "launch/attempts/0000.0000/host.0.exit.json", b"{}")
    folder = LocalFolder(spec.out)
    for _ in range(3):
        assert [a.exits for a in attempts(folder, 2)] == [()]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"warning: passed over in {folder.address}: launch/attempts/0000.0000/")


def test_a_damaged_job_is_one_sentence(make_spec, store, capsys):
    spec = make_spec()
    store(spec)
    for content in CONTENTS.values():
        put(spec, "launch/job.json", content)
        for code, _, err in looked_at(spec, capsys):
            assert code in (2, 78) and err.count("\n") == 1


def test_a_job_runs_in_a_folder_full_of_strangers(make_spec, store):
    spec = make_spec()
    for name in [*STRAYS, "launch/attempts/0000.0000x/host.0.exit.json"]:
        if name != "launch/attempts/zz":  # which is a folder here
            put(spec, name, b"[")
    os.mkfifo(Path(spec.out) / "launch/attempts/pipe")
    store(spec)
    assert supervise(spec.out, lambda text: None).state == "finished"
    assert job.status(spec.out)["state"] == "finished"
