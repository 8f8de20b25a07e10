"""A dataset built in tasks is byte for byte the one that a single process builds."""

from __future__ import annotations

import gzip
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_samples import JAPANESE, content, silent, stdlib_texts
from foreign import FOREIGN, foreign_tokenizer
from killed_tasks import tasks_killed

from llm_jax.config import UserError
from llm_jax.data import streams
from llm_jax.data.build import BuildSpec, VocabSpec, build
from llm_jax.data.building import cut
from llm_jax.data.building.events import Events, Replay
from llm_jax.data.curate.curate import CurateSpec, curate
from llm_jax.data.curate.curated import curated_sources
from llm_jax.data.curate.recipe import Recipe
from llm_jax.data.sources import Document, FileSource, LeftOut, OwnSource, Source, left_out
from llm_jax.data.tasks.workers import Workers
from llm_jax.data.tokenizers import Tokenizer

SMALL = 60_000
"""Bytes of a shard, so that a small corpus has several."""


def cut_small(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(cut, "SHARD_BYTES", SMALL)
    patch.setattr(cut, "LARGE_SHARDS", 1)
    patch.setattr(streams, "SHARD_BYTES", (SMALL, 2 * SMALL))


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    cut_small(monkeypatch)


@pytest.fixture(scope="module")
def messy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of several formats, with losses and duplicates; one is larger than a shard."""
    folder = tmp_path_factory.mktemp("messy")
    (folder / "b").mkdir()
    for name, text in stdlib_texts():
        half = len(text) // 2
        (folder / f"{name}.py").write_text(text[:half], encoding="utf-8")
        lines = [json.dumps({"text": text[i : i + 900]}) for i in range(half, len(text), 900)]
        lines[3:3] = ["{", '{"text": "\\ud800"}', '{"text": "  "}', lines[2]]
        (folder / "b" / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    large = [json.dumps({"text": f"{i}\n{JAPANESE}"}) for i in range(100)]
    (folder / "large.jsonl").write_text("\n".join([*large[:9], "[", *large]), encoding="utf-8")
    (folder / "bad.txt").write_bytes("日本".encode("cp932"))
    (folder / "empty.txt").write_text("")
    (folder / ".hidden").write_text("hidden")
    with gzip.open(folder / "some.txt.gz", "wt", encoding="utf-8") as file:
        file.write(JAPANESE * 3)
    (folder / "cut.txt.gz").write_bytes((folder / "some.txt.gz").read_bytes()[:-20])
    return folder


def fail(sentence: str) -> None:
    raise AssertionError(sentence)


def made(
    sources: tuple[Source, ...], tokenizer: Tokenizer | VocabSpec, out: Path, workers: int,
    say: Any = fail, **more: Any,
) -> dict[str, bytes]:  # fmt: skip
    spec = BuildSpec(sources=sources, tokenizer=tokenizer, **more)
    build(spec, out, silent, workers=workers, say=say)
    assert not list(out.parent.glob(f".{out.name}.build-*"))
    return content(out)


def texts() -> Iterator[str | Document]:
    """Texts under licences of their own, some there before."""
    for number in range(40):
        text = f"{number % 30} {JAPANESE}"
        yield Document(text, f"own {number}", ("MIT", "CC0-1.0")[number % 2], number or None)


@pytest.mark.slow
def test_the_bytes_are_the_same_with_any_number_of_processes(
    messy: Path, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources: tuple[Source, ...] = (
        FileSource(messy, given_name="messy"),
        OwnSource("own", texts),
        FileSource(messy / "b", licence="MIT"),
        FileSource(str(messy / "*.py"), given_name="again"),
    )
    one_shard = made(sources, tokenizer, tmp_path / "whole", 2, max_left_out=0.9)
    cut_small(monkeypatch)
    for workers in (1, 2, 5):
        out = tmp_path / str(workers)
        assert made(sources, tokenizer, out, workers, max_left_out=0.9) == one_shard
    info = json.loads(one_shard["dataset.json"])
    assert info["dropped"]["duplicate"] > 60 and info["lost"]["count"] > 15
    assert {one["name"] for one in info["sources"]} == {"messy", "own", "again", str(messy / "b")}
    assert sum(one["tokens"] for one in info["sources"]) == info["tokens"]


@pytest.mark.slow
@pytest.mark.usefixtures("small_shards")
def test_a_curated_folder_is_read_in_tasks(
    messy: Path, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    spec = CurateSpec(
        sources=(FileSource(messy), FileSource(messy / "b")), recipe=Recipe(), max_left_out=0.9
    )
    curate(spec, tmp_path / "curated", silent, workers=1, say=fail, write_page=lambda *_: None)
    sources = tuple(curated_sources(tmp_path / "curated"))
    assert len(sources) == 2
    one = made(sources, tokenizer, tmp_path / "one", 1)
    assert made(sources, tokenizer, tmp_path / "two", 2) == one
    (tmp_path / "curated" / "documents" / "00000.jsonl.zst").write_bytes(b"")
    with pytest.raises(UserError, match=r"00000\.jsonl\.zst is not what"):
        made(sources, tokenizer, tmp_path / "three", 2)
    assert not list(tmp_path.glob(".*"))


@pytest.mark.slow
@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("kind", ["no-bytes", "byte-level"])
def test_other_tokenizers(kind: str, messy: Path, tmp_path: Path) -> None:
    """One that loses text, and one trained here with one token between documents."""
    tokenizer: Tokenizer | VocabSpec
    if kind in FOREIGN:
        tokenizer = foreign_tokenizer(**FOREIGN[kind])
    else:
        tokenizer = VocabSpec(vocab_size=600, kind="byte-level")
    sources = (FileSource(messy / "b"), FileSource(messy / "large.jsonl"))
    one = made(sources, tokenizer, tmp_path / "one", 1)
    assert made(sources, tokenizer, tmp_path / "two", 2) == one
    fidelity = json.loads(one["dataset.json"])["tokenizer_fidelity"]
    assert bool(fidelity[1]["changed"]) == (kind in FOREIGN)


@pytest.mark.usefixtures("small_shards")
def test_a_document_that_is_cut_for_the_held_out_text(tokenizer: Tokenizer, tmp_path: Path) -> None:
    for name in "ab":
        text = "".join(f"{i} {name} {source}" for i, (_, source) in enumerate(stdlib_texts()))
        (tmp_path / f"{name}.txt").write_text(text, encoding="utf-8")
    sources = (FileSource(tmp_path / "a.txt"), FileSource(tmp_path / "b.txt"))
    one = made(sources, tokenizer, tmp_path / "one", 1)
    assert made(sources, tokenizer, tmp_path / "two", 2) == one
    info = json.loads(one["dataset.json"])
    assert info["split_by"] == "position" and info["splits"]["validation"]["documents"] == 2


def test_a_small_corpus_starts_no_process(
    messy: Path, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Workers, "submit", lambda *words: fail("a process"))
    made((FileSource(messy / "b"),), tokenizer, tmp_path / "out", 8)


@pytest.mark.slow
@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("workers", [1, 2])
def test_losses_that_are_not_allowed(
    workers: int, messy: Path, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    cases: list[tuple[FileSource, dict[str, Any], str]] = [
        (FileSource(messy), {"strict": True}, r"first loss: not utf-8 \(.*bad\.txt"),
        (FileSource(messy / "b"), {"max_left_out": 0.01}, r"above --max-left-out 0\.01"),
    ]
    for source, more, words in cases:
        with pytest.raises(UserError, match=words):
            made((source,), tokenizer, tmp_path / "out", workers, **more)
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize(
    ("new", "words"), [("another text", "changed while it was read"), (None, "is not there")]
)
def test_a_file_that_changes_before_its_task_reads_it(
    new: str | None, words: str, tokenizer: Tokenizer, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    (tmp_path / "in").mkdir()
    for name in "abc":
        (tmp_path / "in" / name).with_suffix(".txt").write_text(f"{name} {JAPANESE * 50}", "utf-8")
    stamps = FileSource.stamps

    def changes(source: FileSource, names: Iterable[str]) -> list[int | None] | None:
        found = stamps(source, names)
        (tmp_path / "in" / "b.txt").unlink(missing_ok=True)
        if new is not None:
            (tmp_path / "in" / "b.txt").write_text(new, "utf-8")
        return found

    monkeypatch.setattr(FileSource, "stamps", changes)
    with pytest.raises(UserError, match=rf"b\.txt {words}"):
        made((FileSource(tmp_path / "in"),), tokenizer, tmp_path / "out", 2)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_events_of_shards_give_the_list_of_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the cuts, and also where a shard is replayed into another."""
    monkeypatch.setattr(left_out, "LISTED", 20)
    monkeypatch.setattr("llm_jax.data.building.events.LISTED", 20)
    draw = np.random.default_rng(0)
    calls = [
        (("lost", "skipped")[int(kind)], f"reason {int(reason)}", f"file {number}")
        for number, (kind, reason) in enumerate(draw.integers(0, [2, 4], (500, 2)))
    ]
    wanted, found = LeftOut(), LeftOut()
    for call in calls:
        _record(wanted, *call)
    for first, last in ((0, 3), (3, 400), (400, 400), (400, 500)):
        events, again = Events(), Events()
        for place, call in enumerate(calls[first:last]):
            events.place = place
            _record(events, *call)
        Replay(json.loads(json.dumps(events.to_dict())), again).rest()
        Replay(again.to_dict(), found).rest()
    for one, name in ((wanted, "wanted"), (found, "found")):
        one.write(tmp_path / name)
    assert (tmp_path / "found").read_bytes() == (tmp_path / "wanted").read_bytes()
    assert (list(found.lost.items()), list(found.skipped.items())) == (
        list(wanted.lost.items()), list(wanted.skipped.items())
    )  # fmt: skip
    assert found.summary(9) == wanted.summary(9) and found.dropped() == wanted.dropped()


def _record(to: LeftOut, kind: str, reason: str, file: str) -> None:
    if kind == "lost":
        to.lose(reason, file, 1, "detail")
    else:
        to.skip(reason, file, 2)


PROGRAM = """
import sys
sys.path[:0] = sys.argv[4:]
import resource, signal
from pathlib import Path
from test_build_tasks import FileSource, Tokenizer, cut_small, made, pytest
cut_small(pytest.MonkeyPatch())
if LIMIT:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, LIMIT))
source, tokenizer, out = map(Path, sys.argv[1:4])
try:
    made((FileSource(source),), Tokenizer.load(tokenizer), out, 2, say=print)
except OSError as error:
    sys.exit(f"OSError: {error}")
except Exception as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


def started(source: Path, tokenizer: Tokenizer, out: Path, limit: int = 0) -> subprocess.Popen[str]:
    """A build of `source` in a process of its own, with two more for its tasks."""
    tokenizer.save(out.parent)
    words = [source, out.parent / "tokenizer.model", out, *sys.path]
    command = [sys.executable, "-c", f"LIMIT = {limit}\n{PROGRAM}", *map(str, words)]
    return subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
@pytest.mark.usefixtures("small_shards")
def test_a_full_disk_in_a_task(messy: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    process = started(messy / "b", tokenizer, tmp_path / "out", limit=40_000)
    said = process.communicate()[1]
    assert process.returncode == 1 and "TaskFailed" in said and "File too large" in said, said
    assert not (tmp_path / "out").exists()
    assert len(list(tmp_path.glob(".out.build-*"))) == 1
    clean = made((FileSource(messy / "b"),), tokenizer, tmp_path / "clean", 1)
    assert made((FileSource(messy / "b"),), tokenizer, tmp_path / "out", 2) == clean


def test_work_that_other_settings_left_is_said_and_removed(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    left, said = tmp_path / f".out.build-{'0' * 12}", list[str]()
    (left / "read").mkdir(parents=True)
    made((OwnSource("own", texts),), tokenizer, tmp_path / "out", 1, say=said.append)
    assert said == [
        f"{left} is unfinished work with other inputs or settings; it goes when this ends"
    ]


@pytest.mark.usefixtures("small_shards")
@pytest.mark.slow
def test_tasks_that_are_killed_change_nothing(
    messy: Path, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    clean = made((FileSource(messy),), tokenizer, tmp_path / "clean", 1)
    said: list[str] = []
    with tasks_killed(tmp_path / ".killed") as killed:
        again = made((FileSource(messy),), tokenizer, tmp_path / "killed", 2, say=said.append)
    assert len(killed) == 5 and 1 <= len(said) <= 5, said
    assert again == clean


@pytest.mark.usefixtures("small_shards")
@pytest.mark.slow
def test_builds_that_are_killed_resume(messy: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    """With all of their tasks, or without: these then write beside those of the next build."""
    clean = made((FileSource(messy),), tokenizer, tmp_path / "clean", 1)
    out, draw = tmp_path / "out", random.Random(3)
    done: set[Path] = set()
    for number in range(4):
        process = started(messy, tokenizer, out)
        wanted, deadline = len(done) + 1 + int(3 * draw.random()), time.monotonic() + 60
        while len(done) < wanted:
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.01)
            done = set(tmp_path.glob(".out.build-*/*/*.done.json"))
        stamps = {path: path.stat().st_mtime_ns for path in done}
        if number % 2:
            os.kill(process.pid, signal.SIGKILL)
        else:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert not out.exists()
    process = started(messy, tokenizer, out)
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())
    assert process.communicate()[1] == "" and process.returncode == 0
    assert content(out) == clean
