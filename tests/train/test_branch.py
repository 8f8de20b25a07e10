"""Runs that begin with another one's weights or go on as its branch, and what they keep of it."""

from __future__ import annotations

import dataclasses
import json
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import jax
import pytest
from tiny import VOCAB, compute_config, model_config, optim_config, run_config

from llm_jax.cli import main
from llm_jax.config import (
    CheckpointConfig,
    ConfigError,
    DataConfig,
    EvalConfig,
    RunConfig,
    load,
    to_json,
)
from llm_jax.runs.history import read_history
from llm_jax.runs.lineage import ancestors, read_of, saved_lineage
from llm_jax.train import branch as branches
from llm_jax.train.failures import Damaged
from llm_jax.train.load import load_run
from llm_jax.train.loop import train
from llm_jax.train.metrics import read_metrics

T, B = 16, 8


def config_of(out: Path, dataset: Path, **changes: Any) -> RunConfig:
    fields: dict[str, Any] = {
        "name": out.name,
        "steps": 6,
        "model": model_config(vocab_size=VOCAB, num_layers=1),
        "data": DataConfig(path=str(dataset), seq_len=T, batch_size=B),
        "optim": optim_config(schedule="constant"),
        "checkpoint": CheckpointConfig(every=2, keep_last=9),
        "eval": EvalConfig(every=100, batches=1),
    }
    return run_config(out, dataset, **(fields | changes))


def losses(out: str | Path) -> dict[int, float]:
    records = read_metrics(Path(out) / "metrics.jsonl")
    return {r["step"]: r["loss"] for r in records if r["split"] == "train"}


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory, tiny_dataset: Path) -> RunConfig:
    config = config_of(tmp_path_factory.mktemp("parent") / "general", tiny_dataset)
    train(config)
    return config


@pytest.mark.slow
def test_a_branch_goes_on_bitwise_under_another_name(parent: RunConfig, tmp_path: Path) -> None:
    """Steps 5 and 6 of the branch are the parent's; with a rate of its own they are not."""
    same = dataclasses.replace(parent, name="same", out=str(tmp_path / "same"))
    result = train(same, branch=f"{parent.out}@4")
    assert (result["step"], result["tokens"]) == (6, 6 * B * T)
    assert losses(same.out) == losses(parent.out)
    ours, theirs = load_run(same.out).params, load_run(parent.out).params
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a == b).all()), ours, theirs)))
    optim = dataclasses.replace(parent.optim, learning_rate=1e-5)
    other = dataclasses.replace(same, name="other", out=str(tmp_path / "other"), optim=optim)
    train(other, branch=f"{parent.out}@4")
    found = losses(other.out)
    assert [found[n] == losses(parent.out)[n] for n in range(1, 7)] == [True] * 5 + [False]


@pytest.mark.slow
def test_the_history_and_the_lineage_share_the_past(
    parent: RunConfig, tmp_path: Path, three_sources: dict[str, Path]
) -> None:
    data = dataclasses.replace(parent.data, path=str(three_sources["books"]))
    made = dataclasses.replace(parent, name="anneal", out=str(tmp_path / "anneal"), data=data)
    train(made, branch=f"{parent.out}@2")
    history = read_history(tmp_path / "anneal", made)
    began = {"run": parent.out, "name": "general", "step": 2}
    assert history.branch == began and history.parent is None
    lineage = saved_lineage(tmp_path / "anneal", 6)
    assert lineage is not None and lineage["branches"] == [began]
    stages = [(one["run"], one["first"], one["end"]) for one in lineage["stages"]]
    assert stages == [("general", 0, 2), ("anneal", 2, 6)]
    assert sorted(read_of(lineage).values()) == [2 * B * T, 4 * B * T]
    names = {text["name"] for text in lineage["texts"].values()}
    assert names == {Path(parent.data.path).name, "books"}
    assert train(made, branch=f"{parent.out}@2")["step"] == 6  # the same command again
    with pytest.raises(ConfigError, match=r"is a branch of .*general, step 2: leave"):
        train(made, branch=f"{parent.out}@4")
    longer = dataclasses.replace(made, steps=7)
    assert train(longer)["step"] == 7  # resumes without the flag
    assert read_history(tmp_path / "anneal", longer).branch == began


@pytest.mark.slow
def test_a_branch_of_a_run_that_began_with_a_model(parent: RunConfig, tmp_path: Path) -> None:
    """random → general → domain (--init) → sensitive (--branch): each knows all before it."""
    domain = dataclasses.replace(parent, name="domain", out=str(tmp_path / "domain"), steps=2)
    train(domain, init=f"{parent.out}@4")
    sensitive = dataclasses.replace(domain, name="sensitive", out=str(tmp_path / "s"), steps=3)
    train(sensitive, branch=domain.out)
    lineage = saved_lineage(tmp_path / "s", 3)
    assert lineage is not None
    assert [(one["run"], one["step"]) for one in ancestors(lineage)] == [
        ("sensitive", 3),
        ("general", 4),
    ]
    assert lineage["began"]["kind"] == "run" and lineage["began"]["step"] == 4
    assert sum(one["tokens"] for one in ancestors(lineage)) == (3 + 4) * B * T


@pytest.mark.parametrize(
    ("place", "changes", "words"),
    [
        ("nowhere", {}, "--branch is 'nowhere', which is not a run with a checkpoint"),
        ("@5", {}, "has no checkpoint of step 5: it has 2, 4, 6"),
        ("@4", {"optim": optim_config(kind="muon")}, "optim.kind 'adamw', not 'muon': keep it"),
        ("@4", {"model": model_config(vocab_size=VOCAB)}, "model.num_layers 1 → 2"),
    ],
)
def test_what_cannot_be_a_branch_is_refused(
    parent: RunConfig, tmp_path: Path, place: str, changes: dict, words: str
) -> None:
    config = dataclasses.replace(parent, name="b", out=str(tmp_path / "b"), **changes)
    place = place if place == "nowhere" else parent.out + place
    with pytest.raises(ConfigError) as error:
        train(config, branch=place)
    assert words in str(error.value)
    assert not (tmp_path / "b" / "run.json").exists()


def test_a_damaged_checkpoint_has_no_branch(parent: RunConfig, tmp_path: Path) -> None:
    shutil.copytree(parent.out, tmp_path / "hurt")
    (tmp_path / "hurt" / "checkpoints" / "4" / "meta" / "metadata").write_text("{}")
    config = dataclasses.replace(parent, name="b", out=str(tmp_path / "b"))
    with pytest.raises(Damaged, match="whose checkpoint 4 is damaged"):
        train(config, branch=str(tmp_path / "hurt@4"))
    assert not (tmp_path / "b" / "run.json").exists()


@pytest.mark.slow
def test_a_branch_that_was_killed_while_it_was_copied(
    parent: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = dataclasses.replace(parent, name="b", out=str(tmp_path / "b"))

    write = branches.write_text

    def until_the_last(path: Path, text: str) -> None:
        if path.name == "run.json":
            raise KeyboardInterrupt
        write(path, text)

    with monkeypatch.context() as patched:
        patched.setattr(branches, "write_text", until_the_last)
        with pytest.raises(KeyboardInterrupt):
            train(config, branch=f"{parent.out}@4")
    assert (tmp_path / "b" / "checkpoints" / "4").is_dir()
    train(config, branch=f"{parent.out}@4")
    assert losses(config.out) == losses(parent.out)
    assert not (tmp_path / "b" / branches.PARTIAL).exists()


@pytest.mark.slow
def test_what_is_left_of_a_killed_copy_is_known_until_all_is_deleted(
    parent: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = dataclasses.replace(parent, name="b", out=str(tmp_path / "b"))
    (tmp_path / "b" / branches.PARTIAL).mkdir(parents=True)
    (tmp_path / "b" / "checkpoints" / "4").mkdir(parents=True)

    remove, removed = shutil.rmtree, list[Path]()

    def once(path: Path, **more: Any) -> None:
        if removed:
            raise KeyboardInterrupt
        removed.append(path)
        remove(path, **more)

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", once)
        with pytest.raises(KeyboardInterrupt):
            train(config, branch=f"{parent.out}@4")
    train(config, branch=f"{parent.out}@4")
    assert losses(config.out) == losses(parent.out)


@pytest.mark.slow
def test_a_branch_whose_checkpoints_are_lost_does_not_begin_anew(
    parent: RunConfig, tmp_path: Path
) -> None:
    config = dataclasses.replace(parent, name="b", out=str(tmp_path / "b"))
    train(config, branch=f"{parent.out}@4")
    before = (tmp_path / "b" / "history.jsonl").read_text()
    for checkpoint in (tmp_path / "b" / "checkpoints").iterdir():
        (checkpoint / "meta" / "metadata").write_text("{}")
    with pytest.raises(Damaged, match=r"a branch of .*general@4, and no undamaged") as error:
        train(config)
    assert "and the one before is used. Checkpoint 4 is damaged" in str(error.value)
    assert "and there is none before it. The run in" in str(error.value)
    assert (tmp_path / "b" / "history.jsonl").read_text() == before


SLOW = """
import os, sys, time
from llm_jax.cli import main
from llm_jax.train import branch

def late(function, seconds):
    def slowly(*arguments):
        time.sleep(seconds)
        return function(*arguments)
    return slowly

branch.check_folder = late(branch.check_folder, float(os.environ["JAX_PROCESS_ID"]))
branch.read_history = late(branch.read_history, 3.0)
main(["train", *sys.argv[1:]])
"""


@pytest.mark.slow
def test_processes_make_a_branch_together(
    parent: RunConfig, tmp_path: Path, environment: dict[str, str]
) -> None:
    """The second process looks at the folder a second later, while the first could copy."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{found.getsockname()[1]}"
    words = ["--branch", f"{parent.out}@4", "--out", str(tmp_path / "b")]
    made = [
        subprocess.Popen(
            [sys.executable, "-c", SLOW, *words],
            env=environment
            | {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2"}
            | {"JAX_PROCESS_ID": str(number), "JAX_NUM_CPU_DEVICES": "4", "XLA_FLAGS": ""},
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    said = [one.communicate(timeout=200)[1] for one in made]
    assert [one.returncode for one in made] == [0, 0], said
    assert losses(tmp_path / "b") == pytest.approx(losses(parent.out), rel=1e-5)


def test_a_host_that_does_not_see_the_branch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = threading.Timer(0.3, (tmp_path / "late").touch)
    late.start()
    branches._wait_to_see(tmp_path / "late")
    late.join()
    monkeypatch.setattr(branches, "SEEN_WITHIN", 0.1)
    with pytest.raises(ConfigError, match="on storage that all hosts share"):
        branches._wait_to_see(tmp_path / "never")


def call(capsys: pytest.CaptureFixture[str], *words: Any, code: int = 0) -> tuple[Any, str]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        main([*map(str, words), "--json"])
    shown = capsys.readouterr()
    assert end.value.code == code, shown.err
    return json.loads(shown.out) if code == 0 else None, shown.err


@pytest.mark.slow
def test_without_a_config_everything_is_the_run_s(
    parent: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "child"
    call(capsys, "train", "--init", f"{parent.out}@2", "--out", out, "--steps", 2)
    made = load(str(out))
    assert made == dataclasses.replace(parent, name="child", out=str(out), steps=2)
    _, said = call(capsys, "train", "--init", parent.out, code=2)
    assert "name another folder for the new run with --out" in said
    _, said = call(capsys, "train", "--init", parent.out, "--branch", parent.out, code=2)
    assert "give one" in said
    _, said = call(capsys, "train", "--init", tmp_path, "--out", out, code=2)
    assert "There is no run in" in said


@pytest.mark.slow
def test_what_a_config_does_not_say_is_the_run_s(
    parent: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A JSON file that names neither batch nor optimizer, and a flag that names the length."""
    whole = dataclasses.replace(
        parent,
        name="wide",
        out=str(tmp_path / "wide"),
        data=dataclasses.replace(parent.data, batch_size=16, seq_len=32),
        compute=compute_config(accumulate=2),
        optim=optim_config(kind="muon", schedule="constant"),
        steps=2,
    )
    train(whole)
    raw = json.loads(to_json(dataclasses.replace(parent, name="child", out=str(tmp_path / "c"))))
    for part, name in (("data", "batch_size"), ("optim", "kind")):
        del raw[part][name]
    (tmp_path / "child.json").write_text(json.dumps(raw | {"steps": 2}))
    words = ["train", tmp_path / "child.json", "--init", whole.out, "--data.seq-len", "24"]
    _, said = call(capsys, *words)
    made = load(str(tmp_path / "c"))
    assert (made.data.batch_size, made.data.seq_len) == (16, 24)
    assert (made.optim.kind, made.compute.accumulate) == ("muon", 2)
    assert f"As in {whole.out}: data.batch_size 16, optim.kind 'muon'" in said
    (tmp_path / "said.json").write_text(to_json(dataclasses.replace(parent, steps=2)))
    call(capsys, "train", tmp_path / "said.json", "--init", whole.out, "--out", tmp_path / "d",
         "--name", "d")  # fmt: skip
    assert load(str(tmp_path / "d")).data.batch_size == B
