"""A run that begins with another one's weights, and a start from any thread."""

from __future__ import annotations

import dataclasses
import json
import shutil
import signal
import threading
from pathlib import Path

import jax
import pytest
from tiny import VOCAB, model_config, optim_config, run_config

from llm_jax.cli import main
from llm_jax.config import CheckpointConfig, ConfigError, EvalConfig, RunConfig, UserError
from llm_jax.laws.run_curves import read_folder
from llm_jax.report.outcome import compare
from llm_jax.runs.history import FILE
from llm_jax.train.failures import Damaged
from llm_jax.train.load import load_run
from llm_jax.train.loop import train
from llm_jax.train.metrics import read_metrics


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory, tiny_dataset: Path) -> RunConfig:
    """Two steps with schedule-free weights, whose average is what a child gets."""
    config = run_config(
        tmp_path_factory.mktemp("parent") / "run",
        tiny_dataset,
        steps=2,
        model=model_config(vocab_size=VOCAB, num_layers=1, tie_embeddings=True),
        optim=optim_config(kind="schedule_free", schedule="constant", learning_rate=1e-2),
        checkpoint=CheckpointConfig(every=1, keep_last=9),
        eval=EvalConfig(every=100, batches=1),
    )
    train(config)
    return config


def call(*argv: object) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([str(word) for word in argv])
    assert stopped.value.code == 0


def child_of(parent: RunConfig, out: Path) -> RunConfig:
    return dataclasses.replace(parent, out=str(out), optim=optim_config())


@pytest.mark.slow
def test_a_run_begins_with_the_weights_of_another(
    parent: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    child = child_of(parent, tmp_path / "child")
    licence = Path(parent.out, "imported", "LICENSE")
    licence.parent.mkdir()
    licence.write_text("Mr. Somebody's licence\n")
    result = train(child, init=parent.out)
    assert Path(child.out, "imported", "LICENSE").read_bytes() == licence.read_bytes()
    said = capsys.readouterr().err
    assert f"weights of {parent.out}, step 2" in said
    begun, given = load_run(child.out, 0).params, load_run(parent.out).params
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a == b).all()), begun, given)))
    records = list(read_metrics(Path(child.out) / "metrics.jsonl"))
    assert [(r["step"], r["split"]) for r in records[:2]] == [(0, "save"), (0, "validation")]
    assert result["tokens"] == 2 * 8 * 16
    (line,) = map(json.loads, (Path(child.out) / FILE).read_text().splitlines())
    assert line["parent"] == {"run": parent.out, "name": "test", "step": 2}

    # Stopped before the first checkpoint of its own, it begins with the same again.
    shutil.rmtree(Path(child.out) / "checkpoints")
    assert train(child)["loss"] == result["loss"]
    assert train(child, init=parent.out)["step"] == 2  # the same command again
    with pytest.raises(ConfigError, match="already began with"):
        train(child, init=str(tmp_path / "elsewhere"))

    # Its tokens do not account for its loss.
    assert any(parent.out in warning for warning in compare(Path(child.out))["warnings"])
    with pytest.raises(UserError, match="leave it out"):
        read_folder(Path(child.out), "all")


@pytest.mark.slow
def test_a_new_folder_begins_with_random_weights_and_names_the_flag(
    parent: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call("train", Path(parent.out) / "run.json", "--out", tmp_path / "new")
    said = capsys.readouterr().err
    assert "random weights of seed 0" in said
    assert f"--init {parent.out}" in said


@pytest.mark.parametrize(
    ("init", "changes", "words"),
    [
        ("nowhere", {}, "--init is 'nowhere', which is not a run with a checkpoint"),
        ("checkpoints/7", {}, "has no checkpoint of step 7: it has 1, 2"),
        ("", {"model": model_config(vocab_size=VOCAB)}, "model.num_layers 1 → 2"),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    parent: RunConfig, tmp_path: Path, init: str, changes: dict, words: str
) -> None:
    config = dataclasses.replace(child_of(parent, tmp_path / "child"), **changes)
    place = init if init == "nowhere" else str(Path(parent.out) / init)
    with pytest.raises(ConfigError) as error:
        train(config, init=place)
    assert words in str(error.value)
    assert not (tmp_path / "child" / "run.json").exists()


@pytest.mark.slow
def test_damaged_weights_are_refused_with_a_way_out(parent: RunConfig, tmp_path: Path) -> None:
    """The run itself may stay as it is: the same folder then begins with another checkpoint."""
    hurt, child = tmp_path / "hurt", child_of(parent, tmp_path / "child")
    shutil.copytree(parent.out, hurt)
    (hurt / "checkpoints" / "2" / "params" / "_METADATA").write_text("{}")
    with pytest.raises(Damaged) as error:
        train(child, init=str(hurt))
    assert str(error.value).endswith("begin with another one (--init RUN@STEP).")
    assert train(child, init=f"{hurt}@1")["step"] == 2


@pytest.mark.slow
def test_longer_sequences_begin_with_the_same_weights(parent: RunConfig, tmp_path: Path) -> None:
    """Rotary positions have no weights, so their base and the longest sequence may change."""
    child = child_of(parent, tmp_path / "long")
    model = dataclasses.replace(
        child.model, max_seq_len=4 * parent.model.max_seq_len, rope_theta=4e5
    )
    data = dataclasses.replace(child.data, seq_len=2 * child.data.seq_len)
    child = dataclasses.replace(child, model=model, data=data)
    assert train(child, init=parent.out)["step"] == 2
    begun, given = load_run(child.out, 0).params, load_run(parent.out).params
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a == b).all()), begun, given)))


@pytest.mark.slow
def test_a_start_from_another_thread(
    parent: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    handlers = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)]
    results = []
    config = dataclasses.replace(parent, out=str(tmp_path / "run"))
    thread = threading.Thread(target=lambda: results.append(train(config)))
    thread.start()
    thread.join()
    assert [one["exit_code"] for one in results] == [0]
    assert "SIGTERM, Ctrl-C and SIGUSR2" in capsys.readouterr().err
    now = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)]
    assert now == handlers
    assert results[0]["loss"] == pytest.approx(train(parent)["loss"], abs=0)


def test_a_path_that_tensorstore_would_split_is_refused(parent: RunConfig, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"run\.out is .*has a backslash"):
        train(child_of(parent, tmp_path / "a\\b"))
    assert list(tmp_path.iterdir()) == []
