"""A start that fails in one of several processes ends all of them, with its sentence and code."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import tiny

from llm_jax.config import (
    Amount,
    ConfigError,
    DataConfig,
    MixtureConfig,
    MixtureSource,
    MixtureStage,
    RunConfig,
    to_dict,
    to_json,
)
from llm_jax.train import agree, distributed


def ends(config: Path, *flags: tuple[str, ...]) -> list[tuple[int, str]]:
    """(exit code, last line of stderr) of `llm-jax train`, with the flags of each process."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    gang = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo",
        "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
        "JAX_NUM_PROCESSES": str(len(flags)),
    }
    command = [sys.executable, "-m", "llm_jax", "train", str(config)]
    children = [
        subprocess.Popen(
            [*command, *words], env=gang | {"JAX_PROCESS_ID": str(i)}, stderr=-1, text=True
        )
        for i, words in enumerate(flags)
    ]
    said = [child.communicate(timeout=120)[1] for child in children]
    return [
        (
            child.returncode,
            next((one for one in reversed(lines.splitlines()) if "error: " in one), lines),
        )
        for child, lines in zip(children, said, strict=True)
    ]


@pytest.fixture
def config(tiny_dataset: Path, tmp_path: Path) -> Path:
    model = tiny.model_config(vocab_size=tiny.VOCAB)
    path = tmp_path / "run.json"
    path.write_text(to_json(tiny.run_config(tmp_path / "out", tiny_dataset, model=model)))
    return path


@pytest.mark.slow
def test_a_wrong_flag_in_process_0(config: Path) -> None:
    (code, own), (told, heard) = ends(config, ("--steps", "many"), ())
    assert code == told == 2, (own, heard)
    sentence = own.removeprefix("error: ")
    assert "steps" in sentence and "many" in sentence
    assert heard == f"error: Process 0 cannot start: {sentence}"


@pytest.mark.slow
def test_data_that_one_process_lacks(config: Path, tmp_path: Path) -> None:
    (told, heard), (code, own) = ends(config, (), ("--data.path", str(tmp_path / "nowhere")))
    assert code == told != 0, (own, heard)
    assert str(tmp_path / "nowhere") in own
    assert heard == f"error: Process 1 cannot start: {own.removeprefix('error: ')}"
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_configs_that_differ(config: Path, tmp_path: Path) -> None:
    flags = ("--steps", "7", "--optim.learning-rate", "0.5")
    (told, heard), (code, own) = ends(config, (), flags)
    assert code == told == 78, (own, heard)
    assert "run.optim.learning_rate " in own and "→ 0.5, run.steps " in own and "→ 7)" in own
    assert heard == f"error: Process 1 cannot start: {own.removeprefix('error: ')}"
    assert not (tmp_path / "out").exists()


ALONE = "from llm_jax.train import distributed; distributed.join(2, 78)"


@pytest.mark.slow
def test_a_process_that_stays_alone(config: Path) -> None:
    """JAX would abort it, with exit code 134 and a stack of C++."""
    alone = {"JAX_PLATFORMS": "cpu", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "1"}
    with socket.create_server(("127.0.0.1", 0)) as server:
        alone["JAX_COORDINATOR_ADDRESS"] = f"127.0.0.1:{server.getsockname()[1]}"
    child = [sys.executable, "-c", ALONE]
    done = subprocess.run(child, env=os.environ | alone, stderr=-1, text=True, timeout=120)
    assert done.returncode == 78
    assert done.stderr.splitlines()[-1].startswith("error: Only some of the 2 processes of the run")


MIXED = MixtureConfig(
    sources=(MixtureSource(name="a", path="data/a"),),
    stages=(MixtureStage(read=(Amount(source="a", weight=1),)),),
)


@pytest.mark.parametrize(
    ("changes", "init", "words"),
    [
        ({"out": "elsewhere", "log_every": 7, "wandb": "project"}, None, None),
        ({"data": DataConfig(path="my/copy", seq_len=16, batch_size=8)}, None, None),
        ({"seed": 3}, None, "run.seed 3 → 0"),
        ({}, "runs/first", "(--init 'runs/first' → None)"),
        ({"data": DataConfig(path="", mixture=MIXED, seq_len=16)}, None, "run.data.mixture {"),
    ],
)
def test_what_may_differ(
    changes: dict, init: str | None, words: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = to_dict(tiny.run_config(**changes)) | {"--init": init, "--branch": None}
    monkeypatch.setattr(distributed, "first_says", lambda ours: json.dumps(first))
    if words is None:
        agree.require_agreement(tiny.run_config(), None, None)
        return
    with pytest.raises(ConfigError) as error:
        agree.require_agreement(tiny.run_config(), None, None)
    assert words in str(error.value)


def test_sources_of_a_mixture_may_be_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    def config(path: str) -> RunConfig:
        sources = (MixtureSource(name="a", path=path),)
        mixture = MixtureConfig(sources=sources, stages=MIXED.stages)
        return tiny.run_config(data=DataConfig(path="", mixture=mixture, seq_len=16))

    first = to_dict(config("here/a")) | {"--init": None, "--branch": None}
    monkeypatch.setattr(distributed, "first_says", lambda ours: json.dumps(first))
    agree.require_agreement(config("there/a"), None, None)


def test_a_folder_and_data_that_are_not_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "all_say", lambda words: [words, "none"])
    agree.require_one_folder("runs/a", False)
    with pytest.raises(ConfigError, match="on storage that all hosts share"):
        agree.require_one_folder("runs/a", True)
    agree.require_one_text("none")
    with pytest.raises(ConfigError, match="Process 1 reads other data than process 0"):
        agree.require_one_text("0123456789abcdef")


@pytest.mark.parametrize(
    ("count", "number", "name"),
    [("", "0", "JAX_NUM_PROCESSES"), ("2", "one", "JAX_PROCESS_ID"), ("2", "2", "JAX_PROCESS_ID")],
)
def test_variables_that_contradict_each_other(
    count: str, number: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "127.0.0.1:1")
    monkeypatch.setenv("JAX_NUM_PROCESSES", count)
    monkeypatch.setenv("JAX_PROCESS_ID", number)
    with pytest.raises(ConfigError, match=name):
        distributed.join()
