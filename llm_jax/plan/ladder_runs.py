"""A ladder of small runs whose losses determine a scaling law.

It has three sizes times three amounts of data, both in equal ratios. So 6·N·D is the same along
each diagonal, the grid has IsoFLOP curves of one, two and three runs, and both terms of
L = E + A/N^α + B/D^β vary independently. Each run has its own full decay of the learning rate
(Hoffmann et al. 2022, section 3.1). The largest run is predicted by a fit to the others.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product

from llm_jax.config import (
    CheckpointConfig,
    ConfigError,
    EvalConfig,
    ModelConfig,
    RecurrentConfig,
    RunConfig,
    UserError,
    nearest,
)
from llm_jax.facts.calibration import calibration
from llm_jax.facts.counts import active_parameters, token_flops
from llm_jax.facts.hardware import Chip
from llm_jax.facts.recurrent_counts import recurrent_flops, sizes_of
from llm_jax.laws import hyperparameters
from llm_jax.plan import architecture, run_config
from llm_jax.plan.dataset_text import Text
from llm_jax.plan.no_run import NoRun
from llm_jax.plan.planner import execution_of, training_dtype
from llm_jax.plan.recurrent_size import CELLS, RATE, of_size
from llm_jax.plan.request import LARGEST

LEAST = 60 / LARGEST
"""Minutes or FLOPs. Less has no meaning, in hours neither."""
STEP = 1.6
"""Default ratio between neighbouring sizes, and between neighbouring amounts of data. A larger
ratio determines the exponents better and spends less of the budget on small runs, but the smallest
run is smaller."""
TOKENS_PER_PARAM = 4.0
"""Tokens per parameter on the diagonal. The corners have step² times more and less: 10 and 1.6."""
LEAST_STEPS = 20
"""Fewest steps of a run; fewer would be mostly warm-up."""


@dataclass(frozen=True, kw_only=True)
class LadderRequest:
    """The input of a ladder. Its budget is `flops` or `minutes`."""

    text: Text
    chip: Chip
    flops: float | None = None
    """FLOPs of all runs together."""
    minutes: float | None = None
    """Minutes of all runs together."""
    family: str = "qwen"
    seq_len: int = 512
    rule: str = "small"
    """Rule for batch and learning rate, as in `hyperparameters.RULES`."""
    step: float = STEP
    """Ratio between neighbouring sizes, and between neighbouring amounts of data."""


@dataclass(frozen=True)
class Rung:
    """One run of a ladder."""

    config: RunConfig
    params: int
    tokens: int
    flops: float
    """Exact FLOPs of training."""
    seconds: float
    """Expected total time of its steps; of a recurrent network that of a Transformer as large."""


def plan_ladder(request: LadderRequest) -> list[Rung]:
    """The nine runs that spend the budget, cheapest first. `out` of each config is the run's name.

    Raises:
      UserError: the budget is too small, or a run would read the text more than once.
    """
    if not 1.2 <= request.step <= 10:
        raise UserError(f"--step is {request.step:g}: give a ratio between 1.2 and 10.")
    check_budget(request.flops, request.minutes)
    check_family(request.family, request.minutes)
    # 6·N·D is not exact, and small models run slower than large ones: scale the tokens to match.
    with in_own_words(request.flops, request.minutes):
        rough = _grid(request, 1.0)
    if request.minutes is not None:
        ratio = request.minutes * 60 / sum(rung.seconds for rung in rough)
    else:
        ratio = (request.flops or 0.0) / sum(rung.flops for rung in rough)
    with in_own_words(request.flops, request.minutes):
        rungs = _grid(request, ratio)
    most = max(rung.tokens for rung in rungs)
    if most > request.text.tokens:
        raise UserError(
            f"The longest run would read {most:,} tokens, but {request.text.path} has only "
            f"{request.text.tokens:,}: give a smaller budget, or more text."
        )
    return sorted(rungs, key=lambda rung: rung.flops)


def check_family(family: str, minutes: float | None) -> None:
    """Raises `UserError` for a family that is not known, or whose time of a step is not."""
    known = [*architecture.FAMILIES, *CELLS]
    if family not in known:
        raise UserError(f"--family is {family!r}: {nearest(family, known)}")
    if minutes is not None and family in CELLS:
        raise UserError(
            f"--minutes is {minutes:g}, and the time of a step is not known for --family "
            f"{family}: give --flops."
        )


def check_budget(flops: float | None, minutes: float | None) -> None:
    """Raises `UserError` for a budget that is not a finite number above 0, or beyond any run."""
    for flag, value in (("--minutes", minutes), ("--flops", flops)):
        if value is not None and not (math.isfinite(value) and value > 0):
            raise UserError(f"{flag} is {value:g}: it must be a finite number above 0.")
        if value is not None and not LEAST <= value <= LARGEST:
            raise UserError(f"{flag} is {value:g}: give a number from {LEAST:g} to {LARGEST:g}.")


@contextlib.contextmanager
def in_own_words(flops: float | None, minutes: float | None) -> Iterator[None]:
    """Says what the planner refuses with the flags of `llm-jax ladder`."""
    flag, value = ("--minutes", minutes) if flops is None else ("--flops", flops)
    try:
        yield
    except NoRun as error:
        why = f"{error.reason}: {error.change} the budget."
        raise UserError(f"{flag} is {value:g}. {why}") from None
    except ConfigError as error:  # a model beyond what a config holds
        why = f"{str(error).rstrip('.')}): lower the budget."
        raise UserError(f"{flag} is {value:g}, too much for any run ({why}") from None


def about_flops(request: LadderRequest) -> float:
    """The budget in FLOPs; of minutes, those at the share of its peak that the chip reaches."""
    if request.minutes is None:
        return request.flops or 0.0
    peak = request.chip.peak(training_dtype(request.chip))
    return request.minutes * 60 * peak * calibration().of(request.chip).share


def _grid(request: LadderRequest, ratio: float) -> list[Rung]:
    """Runs of sizes N₃/step², N₃/step and N₃, each with three amounts of data.

    6·ΣN·ΣD is about the budget. `ratio` multiplies all tokens.
    """
    shares = [request.step**-power for power in (2, 1, 0)]
    largest = math.sqrt(about_flops(request) / (6 * TOKENS_PER_PARAM)) / sum(shares)
    sizes = [largest * share for share in shares]
    data = [ratio * TOKENS_PER_PARAM * size for size in sizes]
    return [rung_of(request, params, tokens) for params, tokens in product(sizes, data)]


def rung_of(request: LadderRequest, params: float, tokens: float) -> Rung:
    """A run of about so many parameters and tokens.

    Raises:
      UserError: they are too few to learn from.
    """
    text, seq_len = request.text, request.seq_len
    too_small = UserError(
        f"The budget gives a run {params:.3g} parameters and {tokens:.3g} tokens, too little to "
        "learn from: raise --flops or --minutes."
    )
    if params < text.vocab_size * 16:
        raise too_small
    model = architecture.choose(
        "llama" if request.family in CELLS else request.family,
        active_parameters,
        params,
        params=params,
        seq_len=seq_len,
        vocab_size=text.vocab_size,
    )
    trained: ModelConfig | RecurrentConfig = model
    per_token = token_flops(model, seq_len).train
    if request.family in CELLS:
        trained = of_size(request.family, params, vocab_size=text.vocab_size, seq_len=seq_len)
        per_token = 3 * recurrent_flops(trained)
    sizes = sizes_of(trained)
    hyper = hyperparameters.recommend(
        request.rule, sizes["non-embedding"], tokens, per_token * tokens
    )
    if request.family in CELLS:
        hyper = replace(hyper, learning_rate=RATE * hyper.learning_rate)
    run = execution_of(model, request.chip, 1, hyper, tokens, seq_len)
    batch_tokens = run.batch_sequences * seq_len
    steps = round(tokens / batch_tokens)
    if steps < LEAST_STEPS:
        raise too_small
    size = sizes["all"]
    name = f"{size / 1e6:.3g}M-{steps * batch_tokens / 1e6:.3g}M"
    config = run_config.training(
        model,
        run,
        hyper,
        steps=steps,
        seq_len=seq_len,
        name=name,
        data=text.path,
        out=name,
    )
    config = replace(
        config,
        model=trained,
        checkpoint=CheckpointConfig(every=config.checkpoint.every, keep_last=1),
        eval=EvalConfig(every=steps, batches=config.eval.batches),
    )
    actual = steps * batch_tokens
    return Rung(config, size, actual, per_token * actual, steps * run.time.expected)
