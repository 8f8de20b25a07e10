"""Hosts whose start-up script gave up: `status` names them, and so do hosts that wait."""

import json
import os
import re
import time

import pytest
from fake_vm import vm

from llm_jax.commands.launch_status import text
from llm_jax.launch import checks, job, startup
from llm_jax.launch.folder import open_folder
from llm_jax.launch.records import attempt_folder, write_json
from llm_jax.launch.startup import start_failures


def record(folder, host, **changes):
    fields = {
        "host": host, "slice": "0", "worker": host[-1], "incarnation": "0", "stage": "install",
        "code": 1, "sentence": "could not install the code for 1800 s", "time": int(time.time()),
    }  # fmt: skip
    write_json(folder, f"startup/{host}.json", fields | changes)


@pytest.fixture
def folder(make_spec, store):
    spec = make_spec(slices=4)
    store(spec)
    return open_folder(spec.out), spec


def processes(folder, spec, first=0):
    return [failure.process for failure in start_failures(folder, spec, first)]


def test_status_names_them_with_the_reason(folder):
    out, _ = folder
    record(out, "vm-3", slice="3", worker="0")
    record(out, "vm-x", slice="", worker="", stage="metadata", sentence="no answer")
    record(out, "vm-1", code=0)
    status = job.status(out.address)
    assert status["start_failures"] == [
        {"host": "vm-3", "process": 3, "stage": "install", "code": 1,
         "sentence": "could not install the code for 1800 s"},
        {"host": "vm-x", "process": None, "stage": "metadata", "code": 1, "sentence": "no answer"},
    ]  # fmt: skip
    assert text(status).splitlines()[1:] == [
        "  vm-3 (host 3) failed at install: could not install the code for 1800 s",
        "  vm-x failed at metadata: no answer",
    ]


@pytest.mark.slow
def test_what_a_real_script_leaves_is_read(tmp_path, make_spec):
    spec = make_spec()
    (tmp_path / "vm").mkdir()
    with vm(tmp_path / "vm") as machine:
        machine.fail("pip install", 1000)
        assert machine("tpu_startup.sh", "0", llm_jax_incarnation="0").wait(60) == 1
        left = machine.record("bucket")
    folder = open_folder(spec.out)
    folder.write("startup/vm.json", json.dumps(left).encode())
    (failure,) = start_failures(folder, spec, 0)
    assert (failure.process, failure.stage, failure.code) == (0, "install", 1)


def test_only_the_newest_allocation_counts(folder):
    out, spec = folder
    record(out, "vm-0", incarnation="1")
    record(out, "vm-1", incarnation="2", slice="1", worker="0")
    record(out, "vm-2", incarnation="")
    assert processes(out, spec) == [1]
    out.write(f"{attempt_folder('0003.0000')}/host.2.json", b"{}")
    assert processes(out, spec) == []


def test_a_host_that_came_back_is_not_named(folder):
    out, spec = folder
    now = int(time.time())
    record(out, "vm-0", time=now - 60)
    assert processes(out, spec) == [0]
    checks.announce(out, "0000.0000", 0, {})
    assert processes(out, spec) == []
    record(out, "vm-0", time=now + 60)
    assert processes(out, spec) == [0]


def test_a_host_whose_agent_ran_is_not_named(folder):
    """One that is preempted or given back writes its record after its agent's last sign of life."""
    out, spec = folder
    stopped = {"stage": "agent", "code": 143, "sentence": "the script was stopped"}
    later = int(time.time()) + 60
    record(out, "vm-0", time=later, **stopped)
    record(out, "vm-1", slice="1", worker="0", time=later, **stopped)
    checks.announce(out, "0000.0000", 0, {})
    assert processes(out, spec) == [1]
    # A sign of life in an allocation before says nothing of this one.
    record(out, "vm-0", time=later, incarnation="1", **stopped)
    assert processes(out, spec) == [0]


def test_hosts_that_wait_say_why_one_is_missing(folder):
    out, spec = folder
    record(out, "vm-3", slice="3", worker="0")
    for process in range(3):
        checks.announce(out, "0000.0000", process, {"address": "", "port": 1})
    why = checks.why_missing(out, "0000.0000", spec, [3])
    assert re.match(r": vm-3 \(host 3\) failed at", why)
    assert checks.why_missing(out, "0000.0000", spec, [2]) == ""


def test_of_many_some_are_read_and_that_is_said(folder, monkeypatch, capsys):
    out, spec = folder
    monkeypatch.setattr(startup, "MOST_READ", 3)
    for number in range(5):
        record(out, f"vm-{number}", slice=str(number), worker="0")
        os.utime(out.path / f"startup/vm-{number}.json", (100 - number, 100 - number))
    out.write("startup/vm-4.json", b"[")  # written last, so the newest
    assert processes(out, spec) == [0, 1]
    err = capsys.readouterr().err
    assert "all but the newest 3 of 5 records in startup/" in err and "startup/vm-4.json" in err


def test_a_long_list_is_cut(folder):
    out, _ = folder
    for number in range(12):
        record(out, f"vm-{number:02}", slice=str(number), worker="0")
    lines = text(job.status(out.address)).splitlines()
    assert len(lines) == 10 and lines[-1] == "  and 4 other hosts failed to start"
