"""One writer at a time, whatever the others' machines, numbers and clocks are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from llm_jax.runs import claim as claim_module
from llm_jax.runs.claim import Claim, Held, only_writer
from llm_jax.runs.process import is_alive, this_process

HOLD = """
import sys
from pathlib import Path
from llm_jax.runs.claim import only_writer
with only_writer(Path(sys.argv[1]), "another program"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("POLL", 0.02), ("BEAT", 0.05), ("EXPIRES", 0.4)):
        monkeypatch.setattr(claim_module, name, seconds)


@contextmanager
def held_by_another(out: Path) -> Iterator[subprocess.Popen]:
    command = [sys.executable, "-c", HOLD, str(out)]
    with subprocess.Popen(command, stdin=-1, stdout=-1, text=True) as child:
        assert child.stdout and child.stdout.readline() == "held\n"
        yield child
        child.kill()


def record(folder: Path, number: int = 0, **changes: Any) -> Path:
    """A claim on `folder / "out"`, which this process seems to have made."""
    file = folder / f".out.writer.{number:06d}.json"
    since = {"what": "llm-jax train", "since": 1.7e9, "job": "", "attempt": "", "id": "x"}
    file.write_text(json.dumps(this_process() | since | changes))
    return file


def seconds_to_take(out: Path) -> float:
    start = time.monotonic()
    with only_writer(out, "test"):
        return time.monotonic() - start


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def claim_files(folder: Path) -> list[str]:
    """Without what a holder is just writing, who gives a sign of life now and then."""
    return [name for name in names(folder) if not name.startswith("..")]


def test_the_second_is_told_who_holds_it(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with held_by_another(out) as child:
        with pytest.raises(Held) as refused, only_writer(out, "test"):
            pass
        (file,) = tmp_path.iterdir()
        sentence = str(refused.value)
        assert "another program" in sentence and f"process {child.pid} on " in sentence
        assert time.strftime("since %Y-%m-%d ") in sentence and str(file) in sentence
        assert refused.value.exit_code == 1
        child.communicate("")  # ends as it wants to
        assert names(tmp_path) == []


def test_a_killed_holder_is_followed_at_once(tmp_path: Path) -> None:
    with held_by_another(tmp_path / "out") as child:
        child.kill()
        while is_alive(json.loads(next(tmp_path.iterdir()).read_text())):
            time.sleep(0.01)
        # It is a zombie now, as nobody has waited for it.
        assert seconds_to_take(tmp_path / "out") < 0.3
    assert names(tmp_path) == []


def test_a_number_that_another_process_has_now(tmp_path: Path) -> None:
    record(tmp_path, started=this_process()["started"] - 1)
    assert seconds_to_take(tmp_path / "out") < 0.3


@pytest.mark.parametrize("changes", [{"boot": "of another machine"}, {"space": "a container's"}])
def test_one_that_cannot_be_seen_is_given_time(changes: dict[str, str], tmp_path: Path) -> None:
    file = record(tmp_path, **changes)
    assert 0.4 < seconds_to_take(tmp_path / "out") < 2
    record(tmp_path, **changes)
    beats = threading.Timer(0.2, lambda: file.write_text(file.read_text() + " "))
    beats.start()
    with pytest.raises(Held, match="`llm-jax train`"), only_writer(tmp_path / "out", "test"):
        pass
    beats.join()
    assert file.exists()


@pytest.mark.parametrize("content", ["", "[1]", "[" * 100_000, '{"pid": -1, "since": 1e99}'])
def test_a_file_that_says_nothing(content: str, tmp_path: Path) -> None:
    (tmp_path / ".out.writer.000000.json").write_text(content)
    assert 0.4 < seconds_to_take(tmp_path / "out") < 2
    assert names(tmp_path) == []


def test_signs_of_life_keep_others_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with only_writer(tmp_path / "out", "test") as claim:
        (file,) = tmp_path.iterdir()
        monkeypatch.setattr(claim_module, "is_alive", lambda record: None)  # as from elsewhere
        with pytest.raises(Held), only_writer(tmp_path / "out", "test"):
            pass
        assert json.loads(file.read_text())["beat"] > 0
        claim.check()


def test_a_later_attempt_of_the_same_job_need_not_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def attempt(job: str, number: str) -> None:
        monkeypatch.setenv("LLM_JAX_JOB", job)
        monkeypatch.setenv("LLM_JAX_ATTEMPT", number)

    attempt("gs://bucket/job", "0001.0000")
    with only_writer(tmp_path / "out", "test") as first:
        for job, number in (("gs://bucket/job", "0001.0000"), ("another", "0002.0000")):
            attempt(job, number)
            with pytest.raises(Held), only_writer(tmp_path / "out", "test"):
                pass
        attempt("gs://bucket/job", "0001.0001")
        with only_writer(tmp_path / "out", "test") as second:
            while not first._lost:
                time.sleep(0.01)
            with pytest.raises(Held, match="belongs to another process now"):
                first.check()
            second.check()
            assert claim_files(tmp_path) == [".out.writer.000001.json"]
    assert names(tmp_path) == []


def test_a_deleted_claim_stops_its_holder(tmp_path: Path) -> None:
    with only_writer(tmp_path / "out", "test") as claim:
        claim.check()
        next(tmp_path.iterdir()).unlink()
        until = time.monotonic() + 5
        with pytest.raises(Held, match="was deleted"):
            while time.monotonic() < until:
                claim.check()
    assert names(tmp_path) == []


def test_exactly_one_of_many_takes_over(tmp_path: Path) -> None:
    record(tmp_path, 4, started=0)
    claims = [Claim(tmp_path / "out", "test", inside=False) for _ in range(8)]
    taken: list[Claim] = []
    together = threading.Barrier(len(claims))

    def take(claim: Claim) -> None:
        together.wait()
        try:
            while not claim.look():
                pass
            taken.append(claim)
        except Held:
            pass

    threads = [threading.Thread(target=take, args=(claim,)) for claim in claims]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == 1
    assert claim_files(tmp_path) == [".out.writer.000005.json"]
    taken[0].release()
    assert names(tmp_path) == []


FORK = """
import os, sys
from pathlib import Path
from llm_jax.runs.claim import only_writer
with only_writer(Path(sys.argv[1]), "test"):
    if child := os.fork():
        os.waitpid(child, 0)
        print(len(list(Path(sys.argv[1]).parent.iterdir())))
"""


def test_a_fork_holds_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FORK, str(tmp_path / "out")]
    assert subprocess.run(command, capture_output=True, text=True).stdout == "1\n"
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", ["x" * 255, "名" * 85, "[a]*.json", "-rf"])
@pytest.mark.parametrize("inside", [True, False])
def test_any_name(name: str, inside: bool, tmp_path: Path) -> None:
    with only_writer(tmp_path / name, "test", inside=inside):
        time.sleep(0.1)  # for a sign of life
        with pytest.raises(Held), only_writer(tmp_path / name, "test", inside=inside):
            pass
        with only_writer(tmp_path / (name[:-1] + "z"), "test", inside=inside):
            pass
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("inside", [True, False])
def test_a_failure_leaves_no_new_folders(inside: bool, tmp_path: Path) -> None:
    with (
        pytest.raises(KeyboardInterrupt),
        only_writer(tmp_path / "a" / "b", "test", inside=inside),
    ):
        assert os.listdir(tmp_path / "a")  # noqa: PTH208
        raise KeyboardInterrupt
    assert names(tmp_path) == []
