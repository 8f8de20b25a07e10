"""The how-to pages of extensions: their file is written, their commands are run."""

from __future__ import annotations

import json
import re
import shlex
import sqlite3
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import pytest
from tiny import VOCAB

from llm_jax.cli import main

PAGES = Path(__file__).resolve().parent.parent / "docs" / "how-to"
"""Of each page: `FILE.py`, then a block of Python that it holds, then a block of commands."""
PART = re.compile(r"`(\w+\.py)`:\n\n```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SHELL = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SMALL = (
    "--model.num-layers 1 --model.d-model 32 --model.num-heads 2 --model.num-kv-heads 2 "
    f"--model.head-dim 16 --model.d-ff 48 --model.vocab-size {VOCAB} --data.seq-len 32 "
    "--data.batch-size 16 --eval.every 20 --checkpoint.every 10 --optim.warmup-steps 2"
).split()


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(name: str) -> tuple[str, list[list[str]]]:
    """Writes the page's file here; returns its name, and the words of the page's commands."""
    page = (PAGES / f"{name}.md").read_text("utf-8")
    ((file, code),) = PART.findall(page)
    Path(file).write_text(code, encoding="utf-8")
    lines = [line for block in SHELL.findall(page) for line in block.splitlines()]
    assert all(line.startswith("llm-jax ") for line in lines)
    return file, [shlex.split(line)[1:] for line in lines]


def run(capsys: pytest.CaptureFixture[str], words: list[str], *more: str) -> dict[str, Any]:
    """What the command prints with `--json`."""
    with pytest.raises(SystemExit) as end:
        main([*words, *more, "--json"])
    said = capsys.readouterr()
    assert not end.value.code, said.err
    return json.loads(said.out)


def fails(capsys: pytest.CaptureFixture[str], words: list[str]) -> str:
    """The sentence with which the command ends."""
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code in (2, 78)
    return capsys.readouterr().err.splitlines()[-1]


def losses(folder: str) -> list[float]:
    lines = Path(folder, "metrics.jsonl").read_text("utf-8").splitlines()
    return [line["loss"] for line in map(json.loads, lines) if line["split"] == "train"]


@pytest.mark.slow
def test_an_optimizer(tiny_dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, (train,) = write("own-optimizer")
    flags = [*SMALL, "--data.path", str(tiny_dataset), "--log-every", "1"]
    assert run(capsys, train, *flags)["step"] == 20
    found = losses("runs/lion")
    assert found[-1] < found[0]
    kept = Path("runs/lion/code/lion.py")
    assert kept.read_text() == Path("lion.py").read_text()
    # A resume is bitwise that of our optimizers: 10 steps, then 10 more.
    halves = [*train, *flags, "--out", "runs/halves"]
    run(capsys, halves, "--steps", "10", "--optim.schedule", "constant")
    run(capsys, halves, "--optim.schedule", "constant")
    run(capsys, [*train, *flags, "--out", "runs/whole"], "--optim.schedule", "constant")
    assert losses("runs/halves") == losses("runs/whole")
    Path("lion.py").write_text(Path("lion.py").read_text() + "\n")
    with pytest.raises(SystemExit):
        main([*halves, "--optim.schedule", "constant", "--steps", "21"])
    assert "another version than before" in capsys.readouterr().err


@pytest.mark.slow
def test_an_objective_with_a_fifth_array(
    tiny_dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, (train,) = write("own-objective")
    flags = [*SMALL, "--data.path", str(tiny_dataset), "--log-every", "1"]
    run(capsys, train, *flags, "--compute.accumulate", "2")
    own = losses("runs/later")
    run(capsys, [*train[:2], *flags, "--steps", "20", "--out", "runs/plain"])
    plain = losses("runs/plain")
    # The first tokens of documents cost nothing, so the same model has a smaller sum.
    assert 0.5 * plain[0] < own[0] < plain[0] - 0.05
    assert own[-1] < own[0]


@pytest.mark.slow
def test_an_objective_on_a_mesh_is_the_same(
    tiny_dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, (train,) = write("own-objective")
    flags = [*SMALL, "--data.path", str(tiny_dataset), "--log-every", "1", "--steps", "2"]
    run(capsys, train, *flags)
    split = ["--parallel.data", "2", "--parallel.context", "2", "--parallel.fsdp", "2"]
    run(capsys, train, *flags, *split, "--out", "runs/split")
    assert losses("runs/split") == pytest.approx(losses("runs/later"), rel=1e-5)


def test_a_source(capsys: pytest.CaptureFixture[str]) -> None:
    _, (build,) = write("own-source")
    with sqlite3.connect("notes.db") as database:
        database.execute("CREATE TABLE notes (id INTEGER, body TEXT)")
        database.executemany(
            "INSERT INTO notes VALUES (?, ?)", [*enumerate(dict.fromkeys(topics.values()))][:60]
        )
    info = run(capsys, build)
    assert info["documents"] == {"in": 60, "out": 60}
    assert info["licences"] == {"CC-BY-4.0": 60}
    assert info["sources"][0]["input"] == "notes.py:notes"
    assert run(capsys, build)["built_before"] is True
    with sqlite3.connect("notes.db") as database:
        database.execute("INSERT INTO notes VALUES (61, 'one more note')")
    assert "data/notes" in fails(capsys, build)  # other text than it was built from


@pytest.mark.slow
def test_an_evaluation(tiny_dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, (evaluate,) = write("own-evaluation")
    flags = [*SMALL, "--data.path", str(tiny_dataset), "--steps", "2", "--out", "runs/first"]
    run(capsys, ["train", "tiny", *flags])
    tasks = run(capsys, evaluate)["tasks"]
    assert list(tasks) == ["repeats.py:repeats"]
    figures = tasks["repeats.py:repeats"]
    assert set(figures) == {"first_nats", "second_nats"}
    assert figures["second_nats"] == pytest.approx(figures["first_nats"], rel=0.2)  # untrained
    Path("bad.py").write_text("def nothing(model):\n    return model.step\n")
    assert "finite numbers" in fails(capsys, [*evaluate[:3], "bad.py:nothing"])


@pytest.mark.slow
def test_a_layer(tiny_dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, (train, generate) = write("own-layer")
    flags = [*SMALL, "--data.path", str(tiny_dataset), "--log-every", "1"]
    run(capsys, train, *flags)
    found = losses("runs/parallel")
    assert found[-1] < found[0] - 0.2
    assert run(capsys, generate, "--max-tokens", "4")["tokens"] > 0
    assert "--trust-code" in fails(capsys, [word for word in generate if word != "--trust-code"])
    export = ["export", "runs/parallel", "--to", "hf", "hf", "--trust-code"]
    assert "model.kind" in fails(capsys, export)
    split = ["--parallel.fsdp", "2", "--parallel.tensor", "2", "--out", "runs/split"]
    run(capsys, train, *flags, *split)
    assert losses("runs/split") == pytest.approx(found, rel=1e-4)


@pytest.mark.slow
def test_an_architecture(tiny_dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, (train, evaluate) = write("own-architecture")
    run(capsys, train, *SMALL, "--data.path", str(tiny_dataset), "--log-every", "1")
    found = losses("runs/mingru")
    assert found[-1] < found[0] - 0.2
    assert run(capsys, evaluate)["loss"] < found[0]
    assert "cannot generate" in fails(capsys, ["generate", "runs/mingru", "--trust-code"])
    assert run(capsys, ["report", "runs/mingru"])["params"] is None


def test_an_optimizer_that_averages_is_refused(
    tiny_dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("mean.py").write_text(
        "import optax\n\ndef mean(optim, rate, specs):\n"
        "    return optax.contrib.schedule_free(optax.sgd(rate), rate)\n"
    )
    flags = [*SMALL, "--data.path", str(tiny_dataset), "--out", "run"]
    assert "schedule_free" in fails(
        capsys, ["train", "tiny", *flags, "--optim.kind", "mean.py:mean"]
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flag", "value", "words"),
    [
        ("--optim.kind", "adamv", "optim.kind is 'adamv': choose one of 'adamw'"),
        ("--optim.kind", "absent.py:f", "there is no file"),
        ("--optim.kind", "own.py:absent", "has no 'absent'"),
        ("--objective", "broken.py:f", "cannot be imported (NameError"),
        ("--objective", "no_such_module:f", "cannot be imported (ModuleNotFoundError"),
        ("--model.kind", "encoder", "has a config of its own"),
        ("--model.kind", "own.py", "FILE.py:NAME"),
    ],
)
def test_a_name_that_stands_for_nothing(
    flag: str, value: str, words: str, tiny_dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("own.py").write_text("f = 3\n")
    Path("broken.py").write_text("f = no_such_name\n")
    train = ["train", "tiny", *SMALL, "--data.path", str(tiny_dataset), "--out", "run"]
    assert words in fails(capsys, [*train, flag, value])
    assert not Path("run/run.json").exists()
