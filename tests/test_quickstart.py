"""The quickstart as a user types it: interrupted, typed again, and typed once more."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import pytest

from llm_jax.laws import lawfile
from llm_jax.plan import dataset_text
from llm_jax.runs.plan_file import read_plan

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("asyncio", "email", "json", "logging")


def start(out: Path, corpus: Path, minutes: str) -> subprocess.Popen[str]:
    """The script in a process group of its own, its output in one pipe."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "MINUTES": minutes,
        "XDG_CACHE_HOME": str(out.parent / "cache"),
    }
    return subprocess.Popen(
        ["bash", str(ROOT / "launch/quickstart.sh"), str(out), str(corpus)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        start_new_session=True,
    )


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    for name in PACKAGES:
        shutil.copytree(
            Path(sysconfig.get_path("stdlib"), name),
            tmp_path / "corpus" / name,
            ignore=shutil.ignore_patterns("__pycache__"),
        )
    return tmp_path / "corpus"


@pytest.mark.slow
def test_interrupted_it_goes_on_to_an_exported_model(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "quickstart"
    first = start(out, corpus, "1")
    metrics, patience = out / "run" / "metrics.jsonl", time.monotonic() + 600
    while not metrics.exists() and first.poll() is None and time.monotonic() < patience:
        time.sleep(0.1)
    assert first.poll() is None, first.communicate()[0]
    os.killpg(first.pid, signal.SIGINT)
    said, _ = first.communicate(timeout=300)
    assert first.returncode == 130, said
    planned = (out / "run.json").read_text()

    second = start(out, corpus, "1")
    said, _ = second.communicate(timeout=600)
    assert second.returncode == 0, said
    assert (out / "run.json").read_text() == planned
    assert "is already there" in said
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    steps = [line["step"] for line in lines if line["split"] == "train"]
    assert steps == sorted(set(steps)), "no step was made twice"
    assert steps[-1] == json.loads(planned)["steps"]
    for name in ("plan.html", "run/loss.png", "run/report.html", "hf/config.json"):
        assert (out / name).stat().st_size > 0, name
    assert "5-gram Kneser-Ney" in said
    assert "another dataset" not in said
    law = lawfile.read(out / "law" / "law.json")
    assert law.recipe is not None
    assert law.recipe.fingerprint == dataset_text.read(out / "data").fingerprint
    plan = read_plan(out / "run")
    assert plan is not None and plan.loss is not None and plan.law_text is None
    assert plan.loss == pytest.approx([x["loss"] for x in lines if x["split"] == "validation"][-1],
                                      rel=0.3)  # fmt: skip

    third = start(out, corpus, "1")
    said, _ = third.communicate(timeout=300)
    assert third.returncode == 0, said


def test_minutes_that_are_no_number_cost_nothing(corpus: Path, tmp_path: Path) -> None:
    process = start(tmp_path / "quickstart", corpus, "three")
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert said == "MINUTES is 'three': give a number of minutes to train for.\n"
    assert not (tmp_path / "quickstart").exists()
