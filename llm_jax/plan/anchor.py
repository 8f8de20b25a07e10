"""The short run that anchors a law on another text, and the law that follows from it.

The run is what the law itself plans for the budget, so it is trained as the ladder's runs were.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

from llm_jax.config import CheckpointConfig, EvalConfig, RunConfig, UserError
from llm_jax.facts.hardware import Chip
from llm_jax.laws import lawfile
from llm_jax.laws.anchor import moved
from llm_jax.laws.fitting import PARAMETERS
from llm_jax.laws.law import Law, Parametric, Recipe
from llm_jax.laws.run_curves import read_folder
from llm_jax.plan.dataset_text import Text
from llm_jax.plan.ladder_runs import check_budget, in_own_words
from llm_jax.plan.limited_text import data_constrained, one_source
from llm_jax.plan.own_speed import own_speed
from llm_jax.plan.plan import Plan
from llm_jax.plan.planner import plan
from llm_jax.plan.request import Request
from llm_jax.plan.run_config import run_config


def shape_of(law: Law) -> tuple[Parametric, Recipe]:
    """`law`, and how its runs were trained.

    Raises:
      UserError: the law does not say.
    """
    if not isinstance(law, Parametric) or law.recipe is None:
        raise UserError(
            f"--anchor is {law.name!r}, which does not say how its runs were trained: give a law "
            "file of `llm-jax ladder`, such as configs/laws/stdlib.json."
        )
    return law, law.recipe


def plan_anchor(
    law: Law, text: Text, chip: Chip, *, flops: float | None, minutes: float | None
) -> Plan:
    """The run that the law plans for this budget on `text`.

    Raises:
      UserError: the budget is too small or too large for the law or the text.
    """
    check_budget(flops, minutes)
    law, recipe = shape_of(law)
    with in_own_words(flops, minutes):
        made = plan(
            Request(
                budget="chip-hours" if flops is None else "flops",
                amount=(minutes or 0.0) / 60 if flops is None else flops,
                chip=chip,
                chips=1,
                law=law,
                family=recipe.family,
                rule=recipe.rule,
                seq_len=recipe.seq_len,
                vocab_size=text.vocab_size,
                unique_tokens=None if text.parts else text.tokens,
                sources=text.parts,
                restart_overhead=0.0,
                speed=own_speed(chip),
            )
        )
    if made.limits:
        raise UserError(made.limits[0])
    if made.loss is None:
        raise UserError(
            f"The budget gives a run of {made.params:,} parameters and {made.tokens:,} tokens, too "
            "few for the law's shape to hold: raise --flops or --minutes."
        )
    return made


def anchor_config(made: Plan, data: str) -> RunConfig:
    """The config of the planned run. It evaluates at its end alone; `out` is the run's name."""
    name = f"{made.params / 1e6:.3g}M-{made.tokens / 1e6:.3g}M"
    config = run_config(made, name=name, data=data, out=name)
    return replace(
        config,
        checkpoint=CheckpointConfig(every=config.checkpoint.every, keep_last=1),
        eval=EvalConfig(every=config.steps, batches=config.eval.batches),
    )


def law_of_anchor(folder: Path, *, law: Law, text: Text, name: str, out: Path) -> dict[str, Any]:
    """Moves `law` to the run in `folder`, and writes the result to `law.json` in `out`.

    Returns:
      The law, the run, and what the law said of it before, as plain JSON values.

    Raises:
      UserError: the folder has no finished run.
    """
    law, recipe = shape_of(law)
    curve = read_folder(folder, law.counts)
    params, tokens, loss = curve.params, curve.tokens[-1], curve.loss[-1]
    constrained = data_constrained(law, text.parts or one_source(text.tokens))
    before = constrained.loss(params, tokens)
    found = moved(
        law,
        *constrained.effective(params, tokens),
        loss,
        name=name,
        source=f"{law.name} ({law.source}) anchored on {text.name}, {date.today().isoformat()}, by "
        f"a run of {params:,.0f} parameters on {tokens:,.0f} tokens: {loss:.4f} nats, where "
        f"{law.name} says {before:.4f}",
        recipe=replace(
            recipe, text=text.name, fingerprint=text.fingerprint, vocab_size=text.vocab_size
        ),
    )
    file = out / "law.json"
    lawfile.write(found, file)
    return {
        "law": str(file),
        **{key: getattr(found, key) for key in PARAMETERS},
        "a": found.a,
        "residual": found.residual,
        "anchor": {
            "law": law.name,
            "text": recipe.text,
            "name": curve.name,
            "params": int(params),
            "tokens": int(tokens),
            "loss": loss,
            "before": before,
        },
        "warnings": _warnings(law, recipe, found, params, tokens),
    }


def _warnings(
    law: Parametric, before: Recipe, found: Parametric, params: float, tokens: float
) -> Sequence[str]:
    warnings, now = law.fitted.warnings(law.name, params, tokens), found.recipe
    assert now is not None
    if found.E == 0:
        warnings.append(
            f"{now.text} is so predictable that no E is left: A and B were made smaller, which was "
            "not tested. `llm-jax ladder` without --anchor fits a law to it."
        )
    if before.vocab_size != now.vocab_size:
        warnings.append(
            f"{law.name} was fitted with a vocabulary of {before.vocab_size:,}, and the dataset "
            f"has {now.vocab_size:,}: a law that moves between vocabularies was not tested."
        )
    return warnings
