"""A law that is moved to another text by one run: where it passes, what it keeps, what it says."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm_jax.config import UserError, to_json
from llm_jax.facts.hardware import chip
from llm_jax.laws import lawfile
from llm_jax.laws.anchor import TRANSFER
from llm_jax.laws.law import Parametric
from llm_jax.plan.anchor import anchor_config, law_of_anchor, plan_anchor
from llm_jax.plan.dataset_text import Text
from llm_jax.plan.limited_text import data_constrained, one_source

LAW = lawfile.read(Path(__file__).parents[2] / "configs/laws/stdlib.json")
TEXT = Text(
    path="data/x",
    vocab_size=4096,
    tokens=10_000_000,
    validation_tokens=250_000,
    bytes_per_token=4.0,
    name="some novels",
    fingerprint="f" * 64,
)
CHIP = replace(chip("a100"), name="local", kind="cpu", f32_flops=3e11, bf16_flops=3e11)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def anchored(folder: Path, loss: float, text: Text = TEXT) -> tuple[Parametric, dict[str, Any]]:
    """The law after a run of 4e12 FLOPs whose last validation loss is `loss`."""
    made = plan_anchor(LAW, text, CHIP, flops=4e12, minutes=None)
    run = folder / "run"
    run.mkdir(parents=True)
    (run / "run.json").write_text(to_json(anchor_config(made, text.path)))
    line = {"split": "validation", "step": made.steps, "tokens": made.tokens, "loss": loss}
    (run / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    found = law_of_anchor(run, law=LAW, text=text, name="mine", out=folder)
    return lawfile.read(Path(found["law"])), found


def losses(law: Parametric, params: float, tokens: float) -> np.ndarray:
    """(draws,) the loss by each bootstrap draw."""
    E, A, B, alpha, beta = np.asarray(law.draws).T
    return E + A * params**-alpha + B * tokens**-beta


def test_the_law_passes_through_the_run_and_keeps_its_shape(tmp_path: Path) -> None:
    law, found = anchored(tmp_path, 5.25)
    run = found["anchor"]
    point = run["params"], run["tokens"]
    assert law.loss(*point) == pytest.approx(5.25, abs=1e-9)
    assert run["before"] == pytest.approx(LAW.loss(*point))
    step = law.E - LAW.E
    assert step == pytest.approx(5.25 - run["before"])
    assert (law.A, law.B, law.alpha, law.beta) == (LAW.A, LAW.B, LAW.alpha, LAW.beta)
    assert law.optimum(1e13).params == LAW.optimum(1e13).params
    assert law.loss(650_000, 3e6) - LAW.loss(650_000, 3e6) == pytest.approx(step)


def test_the_interval_grows_with_the_distance_from_the_run(tmp_path: Path) -> None:
    law, found = anchored(tmp_path, 5.25)
    at_run = found["anchor"]["params"], found["anchor"]["tokens"]
    assert losses(law, *at_run) == pytest.approx(5.25, abs=1e-5)
    least = 1.645 * 5.25 * math.hypot(TRANSFER, LAW.residual, LAW.residual)
    assert law.half_width(*at_run) == pytest.approx(least, rel=1e-4)
    far = 1_000_000, 3_200_000
    spread = np.ptp(np.quantile(losses(law, *far), [0.05, 0.95])) / 2
    assert spread > 0.01
    noise = 1.645 * law.residual * law.loss(*far)
    assert law.half_width(*far) == pytest.approx(math.hypot(spread, noise), rel=1e-4)


def test_the_law_file_says_its_text_and_its_run(tmp_path: Path) -> None:
    law, found = anchored(tmp_path, 5.25)
    assert law.recipe is not None and LAW.recipe is not None
    assert law.recipe == replace(LAW.recipe, text=TEXT.name, fingerprint=TEXT.fingerprint)
    run = found["anchor"]
    for part in (LAW.source, TEXT.name, f"{run['params']:,}", f"{run['tokens']:,}", "5.2500"):
        assert part in law.source


def test_a_run_that_repeats_its_text_is_met_as_the_planner_counts_it(tmp_path: Path) -> None:
    text = replace(TEXT, tokens=342_000)
    law, found = anchored(tmp_path, 4.1, text)
    run = found["anchor"]
    assert run["tokens"] > 3 * text.tokens
    again = data_constrained(law, one_source(text.tokens))
    assert again.loss(run["params"], run["tokens"]) == pytest.approx(4.1, abs=1e-9)


def test_a_text_too_easy_for_the_shape_keeps_losses_above_zero(tmp_path: Path) -> None:
    law, found = anchored(tmp_path, 0.4)
    point = found["anchor"]["params"], found["anchor"]["tokens"]
    assert law.E == 0.0
    assert law.loss(*point) == pytest.approx(0.4)
    share = law.A / LAW.A
    assert share == pytest.approx(law.B / LAW.B)
    assert np.asarray(law.draws)[:, 0].min() >= 0
    assert any("no E is left" in warning for warning in found["warnings"])


def test_the_run_is_what_the_law_plans_for_the_budget() -> None:
    made = plan_anchor(LAW, TEXT, CHIP, flops=None, minutes=0.75)
    assert made.hours * 60 == pytest.approx(0.75, rel=0.01)
    assert made.law_params == pytest.approx(made.optimum.params, rel=0.05)
    config = anchor_config(made, "data/x")
    assert LAW.recipe is not None
    assert config.data.seq_len == LAW.recipe.seq_len
    assert config.eval.every == config.steps == made.steps
    assert config.optim.learning_rate == made.hyper.learning_rate


@pytest.mark.parametrize(
    ("budget", "text", "sentence"),
    [
        ({"flops": None, "minutes": -1.0}, TEXT, "--minutes is -1"),
        ({"flops": math.inf, "minutes": None}, TEXT, "--flops is inf"),
        ({"flops": 2e10, "minutes": None}, TEXT, "raise"),
        ({"flops": 4e13, "minutes": None}, replace(TEXT, tokens=100_000), "text is the limit"),
    ],
)
def test_a_budget_that_anchors_nothing_is_refused(budget, text, sentence) -> None:
    with pytest.raises(UserError, match=sentence):
        plan_anchor(LAW, text, CHIP, **budget)


def test_another_vocabulary_is_said(tmp_path: Path) -> None:
    _, found = anchored(tmp_path, 5.25, replace(TEXT, vocab_size=2048))
    assert any("vocabulary of 4,096" in w and "2,048" in w for w in found["warnings"])
