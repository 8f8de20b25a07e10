"""The ladder's plan in numbers, its fit on a known law, and what it refuses."""

import argparse
import itertools
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from llm_jax.commands import ladder
from llm_jax.config import UserError, to_json
from llm_jax.facts.counts import token_flops, total_parameters
from llm_jax.facts.hardware import chip
from llm_jax.laws import lawfile
from llm_jax.laws.ladder_fit import law_of_ladder
from llm_jax.laws.law import Recipe
from llm_jax.plan.anchor import plan_anchor
from llm_jax.plan.dataset_text import Text, read
from llm_jax.plan.ladder_runs import STEP, LadderRequest, plan_ladder

TEXT = Text(
    path="data/x",
    vocab_size=4096,
    tokens=10_000_000,
    validation_tokens=250_000,
    bytes_per_token=3.0,
    name="some text",
    fingerprint="f" * 64,
)
CHIP = replace(chip("a100"), kind="cpu", f32_flops=100e9, bf16_flops=100e9, attainable=0.5)
RECIPE = Recipe(
    rule="small",
    family="llama",
    seq_len=512,
    vocab_size=4096,
    text=TEXT.name,
    fingerprint=TEXT.fingerprint,
)


def request(**values) -> LadderRequest:
    return LadderRequest(**{"text": TEXT, "chip": CHIP, **values})


@pytest.mark.parametrize("flops", [6e13, 7e13, 2e14])
def test_rungs_spend_the_budget_on_a_grid(flops):
    rungs = plan_ladder(request(flops=flops))
    assert sum(rung.flops for rung in rungs) == pytest.approx(flops, rel=0.01)
    assert [rung.flops for rung in rungs] == sorted(rung.flops for rung in rungs)
    sizes = sorted({rung.params for rung in rungs})
    assert len(rungs) == 9
    assert len(sizes) == 3
    for smaller, larger in itertools.pairwise(sizes):
        assert larger / smaller == pytest.approx(STEP, rel=0.05)
    data = sorted({rung.tokens for rung in rungs})
    assert len(data) == 3
    for less, more in itertools.pairwise(data):
        assert more / less == pytest.approx(STEP, rel=0.01)
    largest = rungs[-1]
    assert (largest.params, largest.tokens) == (sizes[-1], data[-1])
    assert largest.flops < 0.45 * flops
    # 6·N·D is the same along the diagonal of the grid, up to whole heads.
    diagonal = [n * d for n, d in zip(sizes, reversed(data), strict=True)]
    assert max(diagonal) / min(diagonal) < 1.1


def test_each_rung_is_a_run_with_its_own_decay():
    for rung in plan_ladder(request(flops=6e13)):
        config = rung.config
        assert total_parameters(config.model) == rung.params
        assert config.steps * config.batch_tokens == rung.tokens
        assert rung.flops == token_flops(config.model, 512).train * rung.tokens
        assert config.batch_tokens == 1024
        assert config.optim.warmup_steps == round(0.05 * config.steps)
        assert config.optim.final_fraction == 0.02
        assert config.eval.every == config.steps
        assert config.eval.batches * config.batch_tokens == 131_072
        assert not config.compute.scan_layers


def test_minutes_are_the_sum_of_expected_step_times():
    rungs = plan_ladder(request(minutes=20))
    assert sum(rung.seconds for rung in rungs) == pytest.approx(20 * 60, rel=0.01)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"flops": 0.0}, "--flops is 0"),
        ({"minutes": -1.0}, "--minutes is -1"),
        ({"flops": 1e12}, "too little to learn from"),
        ({"flops": 6e13, "step": 0.5}, "--step is 0.5: give a ratio between"),
        ({"flops": 1e15}, "give a smaller budget, or more text"),
        ({"flops": 6e13, "family": "lama"}, "did you mean 'llama'"),
    ],
)
def test_bad_budgets_are_one_sentence(values, sentence):
    with pytest.raises(UserError, match=sentence):
        plan_ladder(request(**values))


def write_runs(folder: Path, noise: float, step: float = STEP) -> list[Path]:
    """Run folders whose last validation loss is 1.8 + 400/N^.4 + 300/D^.35, with noise."""
    rng = np.random.default_rng(0)
    made = []
    for rung in plan_ladder(request(flops=6e13, step=step)):
        path = folder / rung.config.name
        path.mkdir(parents=True)
        (path / "run.json").write_text(to_json(rung.config))
        loss = 1.8 + 400 / rung.params**0.4 + 300 / rung.tokens**0.35
        loss *= math.exp(noise * rng.standard_normal())
        line = {"split": "validation", "step": rung.config.steps, "tokens": rung.tokens}
        (path / "metrics.jsonl").write_text(json.dumps({**line, "loss": loss}) + "\n")
        made.append(path)
    return made


def test_largest_rung_is_predicted_and_the_law_recovered(tmp_path):
    folders = write_runs(tmp_path / "runs", noise=0.0)
    found = law_of_ladder(folders, recipe=RECIPE, name="mine", bootstraps=50, out=tmp_path / "o")
    assert abs(found["held_out"]["error"]) < 1e-4
    assert found["held_out"]["name"] == folders[-1].name
    assert found["held_out"]["measured"] == found["runs"][-1]["loss"]
    assert found["alpha"] == pytest.approx(0.4, rel=1e-3)
    assert found["beta"] == pytest.approx(0.35, rel=1e-3)
    assert found["E"] == pytest.approx(1.8, rel=1e-3)
    law = lawfile.read(Path(found["law"]))
    assert law.recipe == RECIPE
    assert "some text" in law.source
    assert Path(found["figure"]).stat().st_size > 10_000


def test_noise_shows_in_the_held_out_error(tmp_path):
    folders = write_runs(tmp_path / "runs", noise=0.01, step=2.5)
    found = law_of_ladder(folders, recipe=RECIPE, name="mine", bootstraps=200, out=tmp_path / "o")
    held = found["held_out"]
    assert 1e-4 < abs(held["error"]) < 0.05
    assert held["error"] == pytest.approx(held["predicted"] / held["measured"] - 1)
    assert held["interval"][0] < held["measured"] < held["interval"][1]


def test_a_dataset_is_read_without_its_tokens(tiny_dataset, tmp_path):
    text = read(tiny_dataset)
    assert text.vocab_size == 512
    assert text.tokens > 100_000
    assert 1 < text.bytes_per_token < 5
    with pytest.raises(UserError, match="There is no dataset"):
        read(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("budget", ["flops", "minutes"])
@pytest.mark.parametrize("amount", [1e-40, 1e-29, 1e-3, 1e9, 1e15, 1e22, 1e26, 9e29, 1e31, 1e300])
def test_a_refusal_names_only_flags_that_a_ladder_has(budget, amount, tmp_path, monkeypatch):
    """With and without --anchor: the planner, which refuses most of these, has flags of its own."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    parser = argparse.ArgumentParser()
    ladder.add_arguments(parser)
    law = lawfile.read(Path(__file__).parents[2] / "configs/laws/stdlib.json")
    spent = {"flops": None, "minutes": None} | {budget: amount}
    for text in (TEXT, replace(TEXT, tokens=10**29)):
        for plan in (
            lambda text=text: plan_ladder(request(text=text, **spent)),
            lambda text=text: plan_anchor(law, text, CHIP, **spent),
        ):
            try:
                plan()
            except UserError as error:
                flags = set(re.findall(r"--[a-z-]+", str(error)))
                assert flags <= parser._option_string_actions.keys(), error
                assert flags & {"--flops", "--minutes"} or "text" in str(error), error
            else:
                assert 1e12 < amount < 1e26
