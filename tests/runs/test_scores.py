"""Scores of a checkpoint that has other parameters now, after a run has gone back."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from llm_jax.runs import scores
from llm_jax.runs.scores import (
    Scores,
    keep_scores,
    kept_scores,
    outdated,
    scores_file,
    weights_of,
)


def save(run: Path, step: int, digest: str, optimizer: str = "0") -> None:
    folder = run / "checkpoints" / str(step)
    folder.mkdir(parents=True, exist_ok=True)
    sums = {"params/d/0": [8, digest], "opt/d/0": [8, optimizer]}
    (folder / "manifest.json").write_text(json.dumps(sums))


def made(run: Path, task: str, value: float) -> Scores:
    return Scores(task, None, None, {"acc": value}, weights=weights_of(run, 20))


def test_scores_of_replaced_parameters_do_not_count(tmp_path: Path) -> None:
    save(tmp_path, 20, "aa")
    assert weights_of(tmp_path, 20) != weights_of(tmp_path, 3) is None
    before = made(tmp_path, "a", 0.5)
    assert keep_scores(tmp_path, 20, [before, made(tmp_path, "b", 0.5)]) == []
    save(tmp_path, 20, "aa", optimizer="1")
    assert outdated(tmp_path, 20) == 0 and len(kept_scores(tmp_path, 20)) == 2
    save(tmp_path, 20, "bb")
    assert outdated(tmp_path, 20) == 2 and kept_scores(tmp_path, 20) == []
    (note,) = keep_scores(tmp_path, 20, [made(tmp_path, "a", 0.75)])
    assert "dropped 2 kept scores of other parameters" in note
    assert [one.figures for one in kept_scores(tmp_path, 20)] == [{"acc": 0.75}]
    assert outdated(tmp_path, 20) == 0


def test_scores_stay_when_their_checkpoint_is_gone(tmp_path: Path) -> None:
    save(tmp_path, 20, "aa")
    keep_scores(tmp_path, 20, [made(tmp_path, "a", 0.5)])
    (tmp_path / "checkpoints" / "20" / "manifest.json").unlink()
    assert len(kept_scores(tmp_path, 20)) == 1 and outdated(tmp_path, 20) == 0


@pytest.mark.parametrize("damage", ["", "[]", "{"])
def test_a_damaged_manifest_says_nothing(tmp_path: Path, damage: str) -> None:
    save(tmp_path, 20, "aa")
    keep_scores(tmp_path, 20, [made(tmp_path, "a", 0.5)])
    (tmp_path / "checkpoints" / "20" / "manifest.json").write_text(damage)
    assert len(kept_scores(tmp_path, 20)) == 1


def test_scores_that_were_kept_before_weights_were_count(tmp_path: Path) -> None:
    save(tmp_path, 20, "aa")
    keep_scores(tmp_path, 20, [Scores("a", None, None, {"acc": 0.5})])
    file = scores_file(tmp_path, 20)
    held = json.loads(file.read_text())
    del held["scores"][0]["weights"]
    file.write_text(json.dumps(held))
    assert [one.weights for one in kept_scores(tmp_path, 20)] == [None]


def test_two_writers_lose_nothing(tmp_path: Path) -> None:
    def write(task: str) -> None:
        for seed in range(20):
            keep_scores(tmp_path, 20, [Scores(task, None, None, {"acc": 0.5}, seed=seed)])

    threads = [threading.Thread(target=write, args=(task,)) for task in "abc"]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len(kept_scores(tmp_path, 20)) == 60
    assert [path.name for path in (tmp_path / "scores").iterdir()] == ["20.json"]


def test_a_lock_that_was_left_behind_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scores, "PATIENCE", 0.1)
    (tmp_path / "scores").mkdir()
    (tmp_path / "scores" / "20.lock").touch()
    keep_scores(tmp_path, 20, [Scores("a", None, None, {"acc": 0.5})])
    assert len(kept_scores(tmp_path, 20)) == 1
    assert not (tmp_path / "scores" / "20.lock").exists()
