"""No figure of a plan is one that cannot be; one that its text does not pay for says so first."""

from __future__ import annotations

import dataclasses
import json
import math
import random
from pathlib import Path

import pytest

from llm_jax.cli import main
from llm_jax.config import UserError
from llm_jax.facts.hardware import chip
from llm_jax.facts.prices import shipped
from llm_jax.laws.hyperparameters import MOST_RATE, RULES, recommend
from llm_jax.laws.published import PRESETS, preset
from llm_jax.plan.output import result
from llm_jax.plan.planner import plan
from llm_jax.plan.request import Request
from llm_jax.plan.sense import MOST_EPOCHS, bounded, why_no_loss

CPU = dataclasses.replace(
    chip("a100"), name="local", kind="cpu", f32_flops=3e11, bf16_flops=3e11, attainable=0.6,
    hbm_bytes=24e9, hbm_bandwidth=2e10, max_slice_chips=1,
)  # fmt: skip


def some_request(rng: random.Random) -> Request:
    """A request as people make them, and worse."""
    unit = rng.choice([CPU, *map(chip, ("v5e", "v5p", "v6e", "h100", "tpu7x"))])
    budget = rng.choice(
        ["flops", "chip-hours", *(["usd"] if shipped().quote(unit.name, "on-demand") else [])]
    )
    least, most = {"flops": (11, 27), "usd": (-1, 7), "chip-hours": (-2, 6)}[budget]
    return Request(
        budget=budget,  # type: ignore[arg-type]
        amount=10 ** rng.uniform(least, most),
        chip=unit,
        law=preset(rng.choice(["besiroglu-2024", "hoffmann-tex", "sardana"])),
        chips=rng.choice([None, None, 1, 8, 64]) if unit is not CPU else 1,
        family=rng.choice(["llama", "qwen", "gpt2"]),
        vocab_size=rng.choice([None, 256, 4096, 8192, 128_256]),
        unique_tokens=rng.choice([None, 10 ** rng.uniform(5, 13)]),
    )


@pytest.mark.slow
def test_two_hundred_requests_give_nothing_that_cannot_be() -> None:
    rng, planned, withheld, limited = random.Random(0), 0, 0, 0
    while planned < 200:
        request = some_request(rng)
        try:
            made = plan(request)
        except UserError as error:
            assert len(str(error)) > 20
            continue
        planned += 1
        most = math.log(made.model.vocab_size)
        found = result(made)
        losses = [(made.loss, made.interval), (found["optimum"]["loss"], None)]
        losses += [(one["loss"], one["interval"]) for one in found["candidates"]]
        for loss, interval in losses:
            assert loss is None or 0 < loss < most
            assert interval is None or 0 <= interval[0] <= loss <= interval[1] <= most
        assert 0 < made.hyper.learning_rate <= MOST_RATE
        assert (made.epochs or 0) <= MOST_EPOCHS or made.limits
        assert made.hours > 0
        withheld += made.loss is None
        limited += bool(made.limits)
    assert withheld > 10  # the requests do reach where laws end
    assert limited > 10


@pytest.mark.parametrize("name", PRESETS)
def test_losses_are_bounded_for_every_law(name: str) -> None:
    law = preset(name)
    for params, tokens in ((1e3, 1e4), (1e6, 1e7), (1e9, 1e10), (1e14, 1e16)):
        loss, interval = bounded(law, 4096, params, tokens)
        assert loss is None or 0 <= interval[0] <= loss <= interval[1] <= math.log(4096)


def test_what_is_withheld_is_explained() -> None:
    law = preset("besiroglu-2024")
    assert why_no_loss(law, 128_256, 1e9, 2e10) is None
    far = why_no_loss(law, 128_256, 1e5, 1e9)
    assert far is not None and "parameters" in far and "ladder" in far
    assert "guessing among 200" in (why_no_loss(law, 200, 4.5e6, 5.1e8) or "")


@pytest.mark.parametrize("rule", RULES)
def test_no_rate_is_above_what_a_rule_was_fitted_on(rule: str) -> None:
    for params in (1e3, 1e5, 1e7, 1e9, 1e12):
        for tokens in (1e5, 1e9, 1e14):
            made = recommend(rule, params, tokens, 6 * params * tokens)
            assert made.learning_rate <= MOST_RATE
    assert recommend("step-law", 4e8, 1e10, 2.4e19).learning_rate < MOST_RATE


@pytest.mark.slow
def test_the_text_is_the_limit_and_how_much_is_worth_spending(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """$500 on 64 v5e for 7.6 M tokens: 69,251 epochs were planned for it once."""
    flags = ["plan", "--usd", "500", "--chip", "v5e", "--chips", "64", "--unique-tokens", "7.6M"]
    with pytest.raises(SystemExit) as end:
        main([*flags, "--json"])
    found = json.loads(capsys.readouterr().out)
    assert end.value.code == 0
    (limit,) = found["limits"]
    assert limit.startswith("Your text is the limit, not your budget")
    worth = float(limit.split("About $")[1].split(" ")[0].replace(",", ""))
    cheaper = [flags[0], "--usd", str(worth), *flags[3:5], *flags[7:]]  # chips as they suit
    with pytest.raises(SystemExit):
        main([*cheaper, "--json"])
    made = json.loads(capsys.readouterr().out)
    assert made["epochs"] <= 1.1 * MOST_EPOCHS
    file = tmp_path / "run.json"
    with pytest.raises(SystemExit) as refused:
        main([*flags, "--write", str(file)])
    assert refused.value.code == 2 and not file.exists()
    with pytest.raises(SystemExit) as told:
        main([*flags, "--write", str(file), "--anyway"])
    assert told.value.code == 0 and file.exists()
