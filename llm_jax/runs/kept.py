"""What `eval --keep` and `generate --keep` leave in a run's folder for `report`.

`evaluations.json` has the newest result for each text, by the text's name. `samples.json` has the
newest samples. `task_samples/STEP/` has the examples of tasks, one a line; their figures are among
the scores of the checkpoint (`runs/scores.py`).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from llm_jax.config import UserError, read_json, require_shape
from llm_jax.runs.files import write_text

EVALUATIONS, SAMPLES = "evaluations.json", "samples.json"
TASK_SAMPLES = "task_samples"
FIGURES = ("step", "loss", "perplexity", "bits_per_byte", "tokens", "bytes", "ngram", "tasks")
"""Of an evaluation that are kept."""
_SCORE = {"loss": float, "bits_per_byte": float, "tokens": int, "bytes": int}
EVALUATION: dict[str, Any] = {
    "step": int,
    **_SCORE,
    "perplexity": (float,),
    "ngram": ({str: {"order": int, "trained_tokens": int, **_SCORE}},),
    "tasks": {str: {str: float}},
}
TOKEN: dict[str, Any] = {"id": int, "token": str, "log_prob": (float,)}
SAMPLE: dict[str, Any] = {
    "prompt": str,
    "text": str,
    "stopped": bool,
    "stopped_by": (str,),
    "complete": (bool,),
    "seed": (int,),
    "log_probs": ([TOKEN | {"top": [TOKEN]}],),
}
DRAWN: dict[str, Any] = {"step": int, "how": str, "samples": [SAMPLE]}


def keep_evaluation(run: Path, result: dict[str, Any]) -> Path:
    """Keeps the result of `eval` for its texts. Returns the file.

    Raises:
      UserError: the file that is there is damaged.
      OSError: it cannot be written.
    """
    name = ", ".join(result["texts"])
    kept = {key: result[key] for key in FIGURES if key in result}
    file = run / EVALUATIONS
    write_text(file, _json(read_evaluations(run) | {name: kept}))
    return file


def keep_task_samples(run: Path, step: int, task: str, samples: list[dict[str, Any]]) -> Path:
    """Keeps the examples of a task, one a line. Returns the file.

    Raises:
      OSError: it cannot be written.
    """
    name = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in task)
    file = run / TASK_SAMPLES / str(step) / f"{name}.jsonl"
    lines = (json.dumps(one, ensure_ascii=False, default=str) + "\n" for one in samples)
    write_text(file, "".join(lines))
    return file


def keep_samples(run: Path, step: int, how: str, samples: list[dict[str, Any]]) -> Path:
    """Keeps `samples` of `generate` at `step`, in place of those before. Returns the file.

    Args:
      how: how they were drawn, in words.
      samples: of each the fields of `SAMPLE` that it has.

    Raises:
      OSError: the file cannot be written.
    """
    kept = [{key: one[key] for key in SAMPLE if key in one} for one in samples]
    file = run / SAMPLES
    write_text(file, _json({"step": step, "how": how, "samples": kept}))
    return file


def read_evaluations(run: Path) -> dict[str, dict[str, Any]]:
    """Text's name: its newest evaluation, with some of `FIGURES`; empty if none was kept.

    Raises:
      UserError: the file is damaged.
    """
    return _read(run / EVALUATIONS, {str: EVALUATION}, {})


def read_samples(run: Path) -> dict[str, Any] | None:
    """`step`, `how` and `samples`; None if none were kept.

    Raises:
      UserError: the file is damaged.
    """
    return _read(run / SAMPLES, DRAWN, None)


def _read(file: Path, shape: Any, without: Any) -> Any:
    if not file.is_file():
        return without
    held = read_json(file)
    try:
        require_shape(held, shape)
    except UserError as error:
        raise UserError(f"{file} is damaged ({error}): delete it, and keep it anew.") from None
    return held


def _json(value: Any) -> str:
    return json.dumps(value, indent=1) + "\n"
