"""A batch that grows reads the same order of sequences, and resumes like any other run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny import VOCAB, compute_config, model_config, run_config

from llm_jax.config import (
    CheckpointConfig,
    ConfigError,
    DataConfig,
    EvalConfig,
    ParallelConfig,
    RunConfig,
)
from llm_jax.data.dataset import TokenDataset
from llm_jax.parallel.mesh import make_mesh
from llm_jax.runs.history import Text, beginning
from llm_jax.train.checkpoint import forget_after
from llm_jax.train.course import Stage, stages
from llm_jax.train.feed import training_batches, training_text
from llm_jax.train.loop import train
from llm_jax.train.metrics import read_metrics


def config_of(out: Path, dataset: Path, **data: object) -> RunConfig:
    return run_config(
        out,
        dataset,
        steps=12,
        model=model_config(vocab_size=VOCAB),
        compute=compute_config(accumulate=4),
        data=DataConfig(
            path=str(dataset),
            seq_len=32,
            batch_size=8,
            **({"ramp": "2:7"} | data),  # type: ignore[arg-type]
        ),
        eval=EvalConfig(every=1000, batches=1),
        checkpoint=CheckpointConfig(every=5, keep_last=4),
        parallel=ParallelConfig(data=2, tensor=4),
    )


def course_of(config: RunConfig, text: Text) -> list[Stage]:
    return stages(config, beginning(config, text), [], text)


def test_stages_double_the_batch_in_equal_parts() -> None:
    config = config_of(Path("unused"), Path("unused"))
    assert config.data.stages == ((0, 2), (3, 4), (7, 8))
    made = course_of(config, Text("f", 10_000))
    assert [(s.end, s.config.data.batch_size, s.config.compute.accumulate) for s in made] == [
        (3, 2, 1),
        (7, 4, 2),
        (12, 8, 4),
    ]
    assert [config.data.sequences(n) for n in (0, 1, 3, 4, 7, 12)] == [0, 2, 6, 10, 22, 62]
    assert config.tokens(12) == 62 * 32


def test_all_stages_together_read_one_order(tiny_dataset: Path) -> None:
    config, dataset = config_of(Path("unused"), tiny_dataset), TokenDataset.open(tiny_dataset)
    mesh, read, step = make_mesh(config.parallel), [], 0
    for stage in course_of(config, training_text((dataset,), config)):
        batches = training_batches((dataset,), stage, mesh)
        read += [batches.at(n)["inputs"] for n in range(step, stage.end)]
        step = stage.end
    expected = dataset.batches(seq_len=32, batch_size=62, seed=config.data.seed).at(0)["inputs"]
    np.testing.assert_array_equal(np.concatenate(read), expected)


@pytest.mark.slow
def test_a_run_resumed_within_its_ramp_is_the_one_that_never_stopped(
    tiny_dataset: Path, tmp_path: Path
) -> None:
    config = config_of(tmp_path / "run", tiny_dataset)
    whole = train(config)
    assert whole["tokens"] == 62 * 32

    def steps() -> dict[int, tuple[float, int]]:
        records = read_metrics(tmp_path / "run" / "metrics.jsonl")
        return {r["step"]: (r["loss"], r["tokens"]) for r in records if r["split"] == "train"}

    before = steps()
    assert [before[n][1] // 32 for n in (1, 3, 4, 7, 8, 12)] == [2, 6, 10, 22, 30, 62]
    assert forget_after(tmp_path / "run" / "checkpoints", 5) == 5
    assert train(config)["loss"] == whole["loss"]
    assert steps() == before


@pytest.mark.parametrize(
    ("ramp", "sentence"),
    [
        ("3:7", "data.ramp is '3:7', but 3 does not double to data.batch_size"),
        ("8:7", "data.ramp is '8:7', but 8 does not"),
        ("0:7", "data.ramp is '0:7': write sequences:steps"),
        ("7", "data.ramp is '7': write sequences:steps"),
        ("2:1", "data.ramp is '2:1', with fewer steps than the 2 doublings from 2 to 8"),
        ("2:12", "data.ramp is '2:12', but the run has 12 steps"),
        ("1:7", "data.ramp is '1:7', but its first batch is not a multiple of the 2 sequences"),
    ],
)
def test_a_ramp_that_cannot_be_is_refused(ramp: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as error:
        config_of(Path("unused"), Path("unused"), ramp=ramp)
    assert str(error.value).startswith(sentence)
