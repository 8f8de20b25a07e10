"""What is scored anew when a run is followed, or scored again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny

pytest.importorskip("lm_eval")

from llm_jax.config import to_json
from llm_jax.evals.tasks import course
from llm_jax.evals.tasks.course import Checkpoints, follow
from llm_jax.runs.scores import Scores, keep_scores


def save(run: Path, step: int, digest: str) -> None:
    folder = run / "checkpoints" / str(step)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").write_text(json.dumps({"params/d/0": [8, digest]}))


def test_a_checkpoint_that_is_saved_anew_is_scored_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run went back, and came to the same step with other parameters."""
    (tmp_path / "run.json").write_text(to_json(tiny.run_config(tmp_path, "d", steps=30)))
    monkeypatch.setattr(course, "PAUSE", 0.01)
    monkeypatch.setattr(course, "checkpoints_of", lambda run: [10, 20])
    for step in (10, 20):
        save(tmp_path, step, "aa")
    scored: list[int] = []

    class Course:
        def score(self, run: Path, step: int) -> list[Scores]:
            scored.append(step)
            if len(scored) == 2:
                save(tmp_path, 20, "bb")
            if len(scored) == 3:  # one that is being deleted is not new
                (tmp_path / "checkpoints" / "10" / "manifest.json").unlink()
            return []

    found, failures = follow(tmp_path, Course(), lambda sentence: None, patience=0.2)  # type: ignore[arg-type]
    assert scored == [10, 20, 20] and failures == 0 and sorted(found) == [10, 20]


def test_kept_scores_of_a_task_without_version_are_told(tmp_path: Path) -> None:
    include = tmp_path / "own.yaml"
    include.write_text(
        "task: own\ndataset_path: json\noutput_type: loglikelihood\ndoc_to_text: q\n"
        "doc_to_target: a\ntest_split: test\n"
    )
    keep_scores(tmp_path, 20, [Scores("own", None, None, {"acc": 0.5})])

    def unwanted(run: Path, step: int) -> None:
        raise AssertionError("a model is loaded")

    asked = Checkpoints(("own",), include=include, say=print, opened=unwanted)  # type: ignore[arg-type]
    for _ in range(2):
        (kept,) = asked.score(tmp_path, 20)
        assert kept.figures == {"acc": 0.5}
    (note,) = asked.notes
    assert "own: its file says no version" in note
