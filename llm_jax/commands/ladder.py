"""Fit a scaling law to your own text: nine small runs, a fit, and a test of its prediction.

The runs are three sizes times three amounts of data, each with its own full learning rate decay.
The largest run is held out, and predicted by a law fitted to the other eight. The law that is
written is fitted to all nine. With --anchor, one short run moves a law of another text to yours.
Run the same command again to resume: finished runs are kept.

example: llm-jax ladder --data data/mine --minutes 15 --chip local --out ladder
example: llm-jax ladder --data data/mine --minutes 1 --anchor configs/laws/stdlib.json --out anchor
example: llm-jax ladder --mixture mixture.json --minutes 15 --out ladder-of-mixture
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from llm_jax.commands import bootstraps, count, number
from llm_jax.commands.anchor import anchored, anchored_text
from llm_jax.commands.recorded_runs import reading, runs_of, text_of, train
from llm_jax.config import RunConfig, UserError, nearest
from llm_jax.config.wording import counted
from llm_jax.runs.claim import only_writer

DEFAULTS: dict[str, Any] = {
    "family": "qwen",
    "seq_len": 512,
    "rule": "small",
    "step": 1.6,
    "bootstraps": 4000,
}
"""Settings of a ladder. With --anchor they are those of the law."""

COMPILES = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", help="dataset folder from `llm-jax data build`")
    parser.add_argument("--mixture", metavar="FILE", help="all runs read this mixture, as "
                        "`data mix` writes it, in place of --data")  # fmt: skip
    parser.add_argument("--flops", type=number, help="training FLOPs of all runs together")
    parser.add_argument("--minutes", type=number, help="training time of all runs together")
    parser.add_argument("--chip", default="local", help="the one chip that trains the runs; "
                        "`local` is this machine, measured (default: local)")  # fmt: skip
    parser.add_argument("--remeasure", action="store_true", help="measure `local` again")
    parser.add_argument("--anchor", metavar="LAW", help="move this law file to your text by one "
                        "short run, in place of nine")  # fmt: skip
    parser.add_argument("--family", help="llama, qwen, moe, gpt2, lstm, gru (default: qwen, "
                        "whose small models learn to copy early)")  # fmt: skip
    parser.add_argument("--seq-len", type=count, help="tokens per sequence (default: 512)")
    parser.add_argument("--rule", help="rule for batch size and learning rate (default: small)")
    parser.add_argument("--step", type=number, help="ratio of neighbouring sizes, and "
                        "of neighbouring amounts of data (default: 1.6)")  # fmt: skip
    parser.add_argument("--name", help="name of the law (default: ladder, or anchor)")
    parser.add_argument("--bootstraps", type=bootstraps,
                        help="bootstrap draws for the intervals (default: 4000)")  # fmt: skip
    parser.add_argument("--out", type=Path, default=Path("ladder"),
                        help="folder for the runs and the law (default: ladder)")  # fmt: skip


def run(args: argparse.Namespace) -> dict[str, Any]:
    from llm_jax.laws.published import PRESETS

    if (args.flops is None) == (args.minutes is None):
        raise UserError("A ladder takes one budget: give --flops or --minutes.")
    if args.name is not None and args.name in PRESETS:
        raise UserError(f"--name {args.name!r} is the name of a published law: choose another.")
    with only_writer(args.out, "llm-jax ladder"):
        if args.anchor is None:
            return _ladder(args)
        _refuse_settings(args)
        return anchored(args)


def _refuse_settings(args: argparse.Namespace) -> None:
    """Raises `UserError` for a setting that an anchor takes from its law."""
    given = [name for name in DEFAULTS if getattr(args, name) is not None]
    if given:
        flag = "--" + given[0].replace("_", "-")
        raise UserError(f"{flag} is for a full ladder, and --anchor takes its law's: leave it out.")


def _ladder(args: argparse.Namespace) -> dict[str, Any]:
    from llm_jax.laws.hyperparameters import RULES
    from llm_jax.laws.ladder_fit import law_of_ladder
    from llm_jax.laws.law import Recipe

    asked = {name: DEFAULTS[name] if value is None else value
             for name, value in vars(args).items() if name in DEFAULTS}  # fmt: skip
    if asked["rule"] not in RULES:
        raise UserError(f"--rule is {asked['rule']!r}: {nearest(asked['rule'], RULES)}")
    source = text_of(args)
    recipe = Recipe(
        rule=asked["rule"],
        family=asked["family"],
        seq_len=asked["seq_len"],
        vocab_size=source.vocab_size,
        text=source.name,
        fingerprint=source.fingerprint,
    )
    budget = {name: getattr(args, name) for name in ("flops", "minutes", "chip")}
    settings = budget | {"step": asked["step"]} | asdict(recipe)
    configs = runs_of(args.out, settings, lambda: _planned(args, asked, source))
    for place, config in enumerate(configs, 1):
        train(config, f"run {place} of {len(configs)}")
    found = law_of_ladder(
        [Path(config.out) for config in configs],
        recipe=recipe,
        name=args.name or "ladder",
        bootstraps=asked["bootstraps"],
        out=args.out,
    )
    return {"family": recipe.family, **found}


def _planned(args: argparse.Namespace, asked: dict[str, Any], source: Any) -> list[RunConfig]:
    from llm_jax.plan.ladder_runs import LadderRequest, check_family, plan_ladder
    from llm_jax.plan.recurrent_size import CELLS
    from llm_jax.plan.this_machine import chip_named

    check_family(asked["family"], args.minutes)  # before the chip is measured
    rungs = plan_ladder(
        LadderRequest(
            text=source,
            chip=chip_named(args.chip, args.remeasure),
            flops=args.flops,
            minutes=args.minutes,
            family=asked["family"],
            seq_len=asked["seq_len"],
            rule=asked["rule"],
            step=asked["step"],
        )
    )
    minutes = sum(rung.seconds for rung in rungs) / 60
    time = f"about {minutes:.1f} minutes of training steps"
    if asked["family"] in CELLS:
        time = "of which the time is not known"
    print(
        f"{counted(len(rungs), 'run')}, {sum(rung.flops for rung in rungs):.3g} FLOPs, {time}.",
        file=sys.stderr,
    )
    return [reading(args, rung.config) for rung in rungs]


def text(result: dict[str, Any]) -> str:
    from llm_jax.plan.recurrent_size import CELLS

    if "anchor" in result:
        return anchored_text(result)
    lines = ["  parameters     tokens  measured      fitted  difference"]
    for row in result["runs"]:
        error = row["predicted"] / row["loss"] - 1
        lines.append(
            f"  {row['params']:>10,} {row['tokens']:>10,}  {row['loss']:>8.4f}  "
            f"{row['predicted']:>10.4f}  {error:>+9.2%}"
        )
    held = result["held_out"]
    low, high = held["interval"]
    lines += [
        "",
        f"The largest run, predicted from the others: {held['predicted']:.4f} (90%: {low:.4f} to "
        f"{high:.4f}), measured {held['measured']:.4f}, {held['error']:+.2%}.",
        "",
        f"L = {result['E']:.3f} + {result['A']:.4g}/N^{result['alpha']:.3f} + "
        f"{result['B']:.4g}/D^{result['beta']:.3f}, "
        f"best N grows as C^{result['a']:.2f}.",
        *(f"note: {note}" for note in result["warnings"]),
        "",
        f"Wrote {result['law']} and {result['figure']}.",
    ]
    if result["family"] not in CELLS:  # no budget plans a recurrent network
        plan = f"llm-jax plan --law {result['law']} --chip local --chips 1 --deadline-hours 0.05"
        lines.append(f"Next: {plan}")
    return "\n".join(lines)
