"""The guide's commands and its Python are run, and its tables are those of the code."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from llm_jax.serve.app import REFUSALS

GUIDE = (Path(__file__).resolve().parents[2] / "docs" / "serve.md").read_text("utf-8")


def block(language: str, running: Any) -> str:
    """The guide's block in that language, with the address and the model of the tests' server."""
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
    return found.replace("http://127.0.0.1:8000", running.url).replace('"first"', '"cycle"')


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


def test_the_tables_name_all_statuses_and_paths(running: Any) -> None:
    statuses = {int(row) for row in re.findall(r"^\| (\d{3}) \|", GUIDE, re.MULTILINE)}
    assert statuses == set(REFUSALS)
    named = set(re.findall(r"`(/[\w./]*)`", GUIDE))
    paths = {route.path for route in running.server.app.routes} - {"/v1/models/{name:path}"}
    assert paths <= named, paths - named
