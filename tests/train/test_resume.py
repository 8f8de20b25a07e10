"""A run that was stopped, however, and started again is the run that was never stopped."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from tiny import VOCAB, model_config, optim_config, relative_error, run_config

from llm_jax.config import (
    CheckpointConfig,
    ConfigError,
    DataConfig,
    EvalConfig,
    ParallelConfig,
    RunConfig,
    UserError,
    to_json,
)
from llm_jax.data.build import BuildSpec, VocabSpec, build
from llm_jax.data.sources import FileSource
from llm_jax.evals.perplexity import Evaluator
from llm_jax.parallel.mesh import make_mesh
from llm_jax.train.feed import open_datasets
from llm_jax.train.load import load_run
from llm_jax.train.loop import train
from llm_jax.train.metrics import Log, read_metrics
from llm_jax.train.opened import open_run
from llm_jax.train.state import abstract_state
from llm_jax.train.stop import Stop
from llm_jax.train.validation import Validation

STEPS = 60


def config_of(out: Path, dataset: Path, **changes: Any) -> RunConfig:
    fields: dict[str, Any] = {
        "steps": STEPS,
        "model": model_config(vocab_size=VOCAB),
        "data": DataConfig(path=str(dataset), seq_len=32, batch_size=8),
        "checkpoint": CheckpointConfig(every=7),
        "eval": EvalConfig(every=20, batches=2),
    }
    return run_config(out, dataset, **(fields | changes))


def losses(out: Path, split: str = "train") -> dict[int, float]:
    """Loss of every step in metrics.jsonl; a step that is there twice fails."""
    records = [r for r in read_metrics(out / "metrics.jsonl") if r["split"] == split]
    found = {r["step"]: r["loss"] for r in records}
    assert len(found) == len(records)
    return found


def start(config: RunConfig, environment: dict[str, str], devices: int = 1) -> subprocess.Popen:
    path = Path(config.out).parent / f"{Path(config.out).name}.json"
    path.write_text(to_json(config), encoding="utf-8")
    return subprocess.Popen(
        [sys.executable, "-m", "llm_jax", "train", str(path), "--json"],
        env=environment | {"JAX_NUM_CPU_DEVICES": str(devices)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen, code: int = 0) -> tuple[dict[str, Any], str]:
    """The JSON of a program that must end with `code`, and its stderr."""
    out, err = process.communicate(timeout=600)
    assert process.returncode == code, err
    return json.loads(out) if out else {}, err


def at_step(process: subprocess.Popen, out: Path, step: int) -> None:
    """Waits until the run has reported `step`."""
    while not any(r["step"] >= step for r in read_metrics(out / "metrics.jsonl")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.002)


@pytest.fixture(scope="module")
def never_stopped(
    tmp_path_factory: pytest.TempPathFactory, tiny_dataset: Path, environment: dict[str, str]
) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    result, _ = finish(start(config_of(out, tiny_dataset), environment))
    assert result["step"] == STEPS
    assert list(losses(out)) == list(range(1, STEPS + 1))
    return out


@pytest.mark.slow
def test_killed_three_times_it_is_bitwise_the_same(
    tmp_path: Path, tiny_dataset: Path, environment: dict[str, str], never_stopped: Path
) -> None:
    out = tmp_path / "run"
    config = config_of(out, tiny_dataset)
    kills = sorted(random.SystemRandom().sample(range(2, STEPS - 8), 3))
    print("killed at steps", kills)
    for step in kills:
        process = start(config, environment)
        at_step(process, out, step)
        process.kill()
        assert process.wait() == -signal.SIGKILL
    finish(start(config, environment))
    assert losses(out) == losses(never_stopped)
    assert losses(out, "validation") == losses(never_stopped, "validation")


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_signals_save_and_exit(
    number: int,
    code: int,
    tmp_path: Path,
    tiny_dataset: Path,
    environment: dict[str, str],
    never_stopped: Path,
) -> None:
    out = tmp_path / "run"
    config = config_of(out, tiny_dataset, checkpoint=CheckpointConfig(every=1000))
    process = start(config, environment)
    at_step(process, out, 5)
    process.send_signal(number)
    result, _ = finish(process, code)
    assert 5 <= result["step"] < STEPS
    assert Path(result["checkpoint"]).is_dir()
    assert load_run(out).step == result["step"]
    _, err = finish(start(config, environment))
    assert f"{out} after step {result['step']}: " in err
    assert losses(out) == losses(never_stopped)


@pytest.mark.slow
@pytest.mark.parametrize(
    "parallel",
    [
        ParallelConfig(data=8),
        ParallelConfig(data=2, fsdp=2, tensor=2),
        ParallelConfig(data=1, fsdp=2, tensor=4),
    ],
)
def test_goes_on_on_another_mesh(
    parallel: ParallelConfig,
    tmp_path: Path,
    tiny_dataset: Path,
    environment: dict[str, str],
    never_stopped: Path,
) -> None:
    out = tmp_path / "run"
    process = start(config_of(out, tiny_dataset), environment)
    at_step(process, out, 20)
    process.kill()
    process.wait()
    moved = config_of(out, tiny_dataset, parallel=parallel)
    _, err = finish(start(moved, environment, devices=8))
    assert "parallel.data" in err and "sums are rounded differently" in err
    wanted = losses(never_stopped)
    assert losses(out) == pytest.approx(wanted, rel=1e-5)
    assert list(losses(out)) == list(wanted)


def few_steps(out: Path, dataset: Path, **changes: Any) -> RunConfig:
    fields: dict[str, Any] = {
        "steps": 6,
        "checkpoint": CheckpointConfig(every=2, keep_last=2),
        "eval": EvalConfig(every=100, batches=1),
        "model": model_config(vocab_size=VOCAB, num_layers=1, tie_embeddings=True),
        "data": DataConfig(path=str(dataset), seq_len=16, batch_size=8),
    }
    return config_of(out, dataset, **(fields | changes))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_dataset: Path) -> RunConfig:
    config = few_steps(tmp_path_factory.mktemp("finished") / "run", tiny_dataset)
    result = train(config)
    assert (result["step"], result["exit_code"]) == (6, 0)
    assert result["tokens"] == 6 * 8 * 16
    return config


def test_ctrl_c_is_left_to_the_foreground() -> None:
    """A run in the background of a script, or under nohup, ignores SIGINT from birth."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Stop() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert not stop.requested()
            os.kill(os.getpid(), signal.SIGTERM)
            assert (stop.requested(), stop.exit_code) == (True, 75)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.slow
def test_sigterm_between_checkpoints(
    tmp_path: Path, tiny_dataset: Path, finished: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The signal is real and comes after step 3, which no checkpoint falls on."""
    config = few_steps(tmp_path / "run", tiny_dataset)
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    advance = Log.advance

    def advance_and_signal(log: Log, step: int) -> None:
        advance(log, step)
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Log, "advance", advance_and_signal)
    result = train(config)
    assert (result["step"], result["exit_code"]) == (3, 75)
    assert result["checkpoint"] == str(tmp_path / "run" / "checkpoints" / "3")
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == handlers
    monkeypatch.undo()
    assert train(config)["step"] == 6
    assert losses(tmp_path / "run") == losses(Path(finished.out))


BFLOAT16 = dict.fromkeys(("param_dtype", "moment_dtype", "second_moment_dtype"), "bfloat16")
STATES = {
    "bfloat16": optim_config(**BFLOAT16),
    "schedule_free": optim_config(kind="schedule_free", schedule="constant"),
    "muon": optim_config(kind="muon", **BFLOAT16),
}


@pytest.mark.slow
@pytest.mark.parametrize("state", STATES)
def test_every_state_goes_on_bitwise(state: str, tmp_path: Path, tiny_dataset: Path) -> None:
    """A run whose checkpoints after step 4 are gone makes steps 5 and 6 again."""
    config = few_steps(tmp_path / "run", tiny_dataset, optim=STATES[state])
    result = train(config)
    end, before = load_run(config.out).params, losses(tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "6")
    assert train(config)["step"] == 6
    assert losses(tmp_path / "run") == before
    same = jax.tree.map(lambda a, b: bool((a == b).all()), load_run(config.out).params, end)
    assert all(jax.tree.leaves(same))
    (dataset,) = open_datasets(config)
    evaluator = Evaluator(config, load_run(config.out).params, dataset.tokenizer)
    whole = evaluator.split(dataset, "validation", lambda phase, done, total: None).report()["loss"]
    assert whole == pytest.approx(result["loss"], rel=0.1)


@pytest.mark.slow
def test_the_average_is_what_is_evaluated_and_handed_over(
    tmp_path: Path, tiny_dataset: Path
) -> None:
    """`schedule_free` stores the y that it trains at; x = (y - (1 - b1)·z)/b1 is the model."""
    optim = optim_config(kind="schedule_free", schedule="constant", learning_rate=3e-2, b1=0.5)
    config = few_steps(tmp_path / "run", tiny_dataset, optim=optim)
    result = train(config)
    saved = ocp.StandardCheckpointer().restore(Path(result["checkpoint"]) / "params")
    state = ocp.StandardCheckpointer().restore(Path(result["checkpoint"]) / "opt")["1"]
    x = jax.tree.map(lambda y, z: (y - (1 - optim.b1) * z) / optim.b1, saved, state["z"])
    handed = load_run(config.out).params
    assert relative_error(handed, x) < 1e-6
    assert relative_error(handed, saved) > 1e-2
    with open_run(config.out, scratch=tmp_path / "made") as run:
        assert relative_error(jax.tree.map(np.asarray, run.params), handed) == 0
        assert run.notes == (
            "the weights are the average that schedule-free keeps, which is evaluated",
        )
    mesh = make_mesh(config.parallel)
    validation = Validation(open_datasets(config), config, mesh)
    where = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(config, mesh)["params"])
    found = validation.measure(jax.device_put(handed, where), lambda: False)
    assert found is not None and found["loss"] == pytest.approx(result["loss"], rel=1e-6)
    wrong = validation.measure(jax.device_put(saved, where), lambda: False)
    assert wrong is not None and wrong["loss"] != pytest.approx(result["loss"], rel=1e-5)


def test_a_finished_run_does_nothing_more(finished: RunConfig) -> None:
    before = losses(Path(finished.out))
    result = train(finished)
    assert (result["step"], result["exit_code"], result["tokens_per_second"]) == (6, 0, None)
    assert losses(Path(finished.out)) == before


@pytest.mark.slow
def test_a_longer_run_goes_on(tmp_path: Path, tiny_dataset: Path) -> None:
    short = few_steps(tmp_path / "run", tiny_dataset, steps=2)
    train(short)
    assert train(dataclasses.replace(short, steps=3))["step"] == 3
    assert list(losses(tmp_path / "run")) == [1, 2, 3]


@pytest.mark.slow
def test_checkpoints_that_are_kept(tmp_path: Path, tiny_dataset: Path) -> None:
    policy = CheckpointConfig(every=1, keep_last=2, keep_every=3)
    config = few_steps(tmp_path / "run", tiny_dataset, checkpoint=policy, steps=8)
    train(config)
    kept = sorted(int(p.name) for p in (tmp_path / "run" / "checkpoints").iterdir())
    assert kept == [3, 6, 7, 8]
    assert load_run(config.out, 3).step == 3
    with pytest.raises(UserError, match="no checkpoint of step 5: it has 3, 6, 7, 8"):
        load_run(config.out, 5)


READ_WITHOUT_US = """
import json, sys, pathlib
import jax
import numpy as np
import orbax.checkpoint as ocp
step = pathlib.Path(sys.argv[1])
params = ocp.StandardCheckpointer().restore(step / "params")
opt = ocp.StandardCheckpointer().restore(step / "opt")
meta = json.loads((step / "meta" / "metadata").read_text())
def kinds(tree):
    if isinstance(tree, dict):
        return {type(tree).__name__}.union(*map(kinds, tree.values()))
    return {type(tree).__name__}
assert not {"llm_jax", "flax"} & set(sys.modules), "these libraries must not be needed"
print(json.dumps({
    "kinds": sorted(kinds(params) | kinds(opt)),
    "tokens": params["embed"]["tokens"].shape,
    "q": params["blocks"]["attn"]["q"].shape,
    "meta": meta,
}))
"""


@pytest.mark.slow
def test_checkpoints_are_plain_and_outlive_the_library(
    finished: RunConfig, environment: dict[str, str]
) -> None:
    step = Path(finished.out) / "checkpoints" / "6"
    done = subprocess.run(
        [sys.executable, "-c", READ_WITHOUT_US, str(step)],
        env=environment | {"JAX_NUM_CPU_DEVICES": "8"},
        capture_output=True,
        text=True,
        cwd="/",
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["kinds"] == ["ArrayImpl", "dict"]
    assert found["tokens"] == [VOCAB, 32]
    assert found["q"] == [1, 32, 8, 8]
    meta = found["meta"]
    assert meta["config"] == json.loads(to_json(finished))
    assert meta["step"] == meta["data"]["next_step"] == 6
    assert meta["stacked_layers"] is True
    assert len(meta["tokenizer_sha256"]) == 64
    assert meta["versions"]["orbax-checkpoint"] == ocp.__version__


LOAD = """
import sys
from llm_jax.train.load import load_run
import jax
import numpy as np
assert jax.device_count() == 1
run = load_run(sys.argv[1])
print(run.step, sum(float(abs(leaf).sum()) for leaf in jax.tree.leaves(run.params)))
"""


@pytest.mark.slow
def test_a_run_of_eight_devices_is_read_on_one(
    finished: RunConfig, environment: dict[str, str]
) -> None:
    command = [sys.executable, "-c", LOAD, finished.out]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    step, total = done.stdout.split()
    params = load_run(finished.out).params
    assert int(step) == 6
    assert float(total) == pytest.approx(
        sum(float(abs(leaf).sum()) for leaf in jax.tree.leaves(params)), rel=1e-6
    )


def test_what_orbax_notes_of_checkpoints_is_not_read_with_the_weights(
    finished: RunConfig, tmp_path: Path
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(finished.out, copy)
    for note in copy.glob("checkpoints/*/_CHECKPOINT_METADATA"):
        note.write_text("[]")
    jax.tree.map(
        np.testing.assert_array_equal, load_run(copy).params, load_run(finished.out).params
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"model": model_config(vocab_size=VOCAB, num_layers=2, tie_embeddings=True)},
            "another architecture (run.model.num_layers 1 → 2)",
        ),
        ({"name": "other"}, "belongs to run 'test', not 'other'"),
        ({"optim": optim_config(kind="muon")}, "optim.kind is 'muon', but the run in"),
    ],
)
def test_another_run_is_refused(finished: RunConfig, changes: dict[str, Any], words: str) -> None:
    before = (Path(finished.out) / "run.json").read_text()
    with pytest.raises(ConfigError) as error:
        train(dataclasses.replace(finished, **changes))
    assert words in str(error.value)
    assert (Path(finished.out) / "run.json").read_text() == before


def test_another_tokenizer_is_refused(
    finished: RunConfig, tmp_path: Path, tiny_dataset: Path
) -> None:
    source = FileSource(Path(dataclasses.__file__))
    spec = BuildSpec(sources=(source,), tokenizer=VocabSpec(vocab_size=VOCAB))
    build(spec, tmp_path / "other", lambda phase, done, total: None)
    before = (Path(finished.out) / "run.json").read_text()
    data = dataclasses.replace(finished.data, path=str(tmp_path / "other"))
    with pytest.raises(ConfigError, match=r"another tokenizer \(\w{12}, now \w{12}\)"):
        train(dataclasses.replace(finished, data=data))
    assert (Path(finished.out) / "run.json").read_text() == before


def test_a_folder_that_holds_something_else_is_refused(tmp_path: Path, tiny_dataset: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError, match="not empty"):
        train(few_steps(out, tiny_dataset))
    assert [p.name for p in out.iterdir()] == ["thesis.tex"]


def test_a_vocabulary_that_is_not_the_tokenizers_is_refused(
    tmp_path: Path, tiny_dataset: Path
) -> None:
    config = few_steps(tmp_path / "run", tiny_dataset, model=model_config(vocab_size=640))
    with pytest.raises(
        ConfigError, match=r"vocab_size is 640, but the tokenizer .* has 512 tokens"
    ):
        train(config)
    assert not (tmp_path / "run").exists()
