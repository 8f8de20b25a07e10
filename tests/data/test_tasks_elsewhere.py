"""What tasks on other machines need, with a stand-in that runs them in another directory."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest
from data_samples import silent

from llm_jax.data.building import cut as portions
from llm_jax.data.building import work as work_module
from llm_jax.data.curate import shards, task
from llm_jax.data.curate.curate import CurateSpec, curate
from llm_jax.data.curate.recipe import Recipe
from llm_jax.data.curate.steps.near_duplicates import NearDuplicates
from llm_jax.data.sources import FileSource
from llm_jax.data.tasks import program, seen
from llm_jax.runs.tasks import TaskFailed


class Elsewhere:
    """Runs tasks here, from the root directory; some fail, and some do nothing.

    Attributes:
      ran: words of the tasks, without the folder.
    """

    def __init__(self, fails: str = "", idle: str = "") -> None:
        self.ran: list[tuple[str, ...]] = []
        self._fails, self._idle = fails, idle

    def __call__(self, *, module: str) -> Elsewhere:
        return self

    def __enter__(self) -> Elsewhere:
        return self

    def __exit__(self, *error: object) -> None:
        """Has nothing to end."""

    def submit(self, *words: object) -> None:
        folder, *more = map(str, words)
        self.ran.append(tuple(more))
        if more[0] == self._fails:
            raise TaskFailed("The task failed.")
        if more[0] == self._idle:
            return
        before = Path.cwd()
        os.chdir("/")
        try:
            assert task.main([folder, *more]) == 0
        finally:
            os.chdir(before)

    def join(self) -> None:
        """Everything has ended."""


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Portions of two files, each with a shard of its own; we are in their folder."""
    monkeypatch.setattr(portions, "SHARD_BYTES", 600)
    monkeypatch.setattr(shards, "SHARD_BYTES", 300)
    monkeypatch.setattr(program.signal, "signal", lambda *words: None)
    draw = random.Random(0)
    (tmp_path / "texts").mkdir()
    for number in range(6):
        text = " ".join("".join(draw.choices("abcdefgh", k=5)) for _ in range(60))
        (tmp_path / "texts" / f"{number}.txt").write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)


def run(out: str, source: Path, workers: Any) -> dict[str, bytes]:
    spec = CurateSpec(
        sources=(FileSource(source, given_name="texts"),),
        recipe=Recipe(steps=(NearDuplicates(),)),
    )
    settings: dict[str, Any] = {"say": print, "write_page": lambda folder, info: None}
    curate(spec, Path(out), silent, workers=workers, **settings)
    return {path.name: path.read_bytes() for path in Path(out, "documents").iterdir()}


@pytest.mark.slow
def test_relative_paths_are_found_from_another_directory() -> None:
    elsewhere = Elsewhere()
    assert run("out", Path("texts"), elsewhere) == run("here", Path("texts"), 1)
    assert [one for one in elsewhere.ran if one[0] == "read"] == [
        ("read", str(i)) for i in range(3)
    ]
    places = [("0", str(shard), str(shard // 2), str(shard % 2)) for shard in range(6)]
    assert sorted(one[:4] for one in elsewhere.ran if one[0] == "0" and len(one) == 5) == places


@pytest.mark.slow
@pytest.mark.parametrize("idle", ["read", "0", "1"])
def test_work_of_a_task_that_is_not_to_be_seen_is_no_silent_loss(
    idle: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NFS may still say that a file is not there which another machine has written."""
    monkeypatch.setattr(seen, "LAG", 0.0)
    with pytest.raises(TaskFailed, match="run this again to resume"):
        run("out", Path("texts"), Elsewhere(idle=idle))
    assert not Path("out").exists()
    assert run("out", Path("texts"), 1) == run("here", Path("texts"), 1)


@pytest.mark.slow
def test_a_resumed_curation_keeps_what_is_done_but_not_of_another_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts, out = tmp_path / "texts", str(tmp_path / "out")
    with pytest.raises(TaskFailed):
        run(out, texts, Elsewhere(fails="1"))
    monkeypatch.chdir("/")
    again = Elsewhere(fails="1")
    with pytest.raises(TaskFailed):
        run(out, texts, again)
    assert {one[0] for one in again.ran} == {"1"}
    monkeypatch.setattr(work_module, "FORMAT", 0)
    other = Elsewhere()
    assert run(out, texts, other) == run(str(tmp_path / "here"), texts, 1)
    assert {one[0] for one in other.ran} == {"read", "0", "1"}
