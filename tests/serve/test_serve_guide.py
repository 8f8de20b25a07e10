"""The guide's commands and its Python are run, and its tables are those of the code."""

from __future__ import annotations

import functools
import importlib
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from llm_jax.serve.app import REFUSALS

GUIDE = (Path(__file__).resolve().parents[2] / "docs" / "serve.md").read_text("utf-8")


def block(language: str, running: Any) -> str:
    """The guide's block in that language, with the address and the model of the tests' server."""
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
    found = found.replace("http://127.0.0.1:8000", running.url)
    return found.replace('"first"', '"cycle"').replace("model=first", "model=cycle")


def test_the_commands_run(running: Any) -> None:
    script = "set -euo pipefail\n" + block("bash", running)
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "error" not in done.stdout
    assert done.stdout.count('"object":"list"') == 1
    assert done.stdout.count('"object":"text_completion"') > 2
    assert done.stdout.endswith("data: [DONE]\n\n")


def test_the_python_runs(running: Any, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("openai")
    exec(compile(block("python", running), "docs/serve.md", "exec"), {})
    said = capsys.readouterr().out
    assert "total_tokens" in said and said.splitlines()[-1] == "64"


@pytest.mark.slow
def test_lm_eval_scores_the_task_of_the_other_guide(
    running: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    program = pytest.importorskip("lm_eval.__main__")
    other = (Path(__file__).resolve().parents[2] / "docs" / "evaluation.md").read_text("utf-8")
    files = re.findall(r"`(colours\.\w+)`:\n\n```\w+\n(.*?)^```$", other, re.M | re.S)
    assert [name for name, _ in files] == ["colours.yaml", "colours.jsonl"]
    (tmp_path / "tasks").mkdir()
    for name, content in files:
        (tmp_path / "tasks" / name).write_text(content, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("sys.argv", shlex.split(block("text", running).replace("\\\n", "")))
    # lm-eval's own tasks are not read: it takes long, and none is asked for.
    tasks = importlib.import_module("lm_eval.tasks")
    quick = functools.partial(tasks.TaskManager, include_defaults=False)
    monkeypatch.setattr(tasks, "TaskManager", quick)
    program.cli_evaluate()
    said = capsys.readouterr().out
    # A column is as wide as its header, which not every version of lm-eval's writer prints.
    assert re.search(r"\|colours\|.*\|acc *\|", said), said


def test_the_tables_name_all_statuses_and_paths(running: Any) -> None:
    statuses = {int(row) for row in re.findall(r"^\| (\d{3}) \|", GUIDE, re.MULTILINE)}
    assert statuses == set(REFUSALS)
    named = set(re.findall(r"`(/[\w./]*)`", GUIDE))
    paths = {route.path for route in running.server.app.routes} - {"/v1/models/{name:path}"}
    assert paths <= named, paths - named
