"""`ladder --anchor`: a law of another text, moved to yours by one short run."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from llm_jax.commands.recorded_runs import reading, runs_of, text_of, train
from llm_jax.config import RunConfig


def anchored(args: argparse.Namespace) -> dict[str, Any]:
    """Plans the run, trains it, and writes the law that it anchors."""
    from llm_jax.laws import lawfile
    from llm_jax.plan.anchor import law_of_anchor, shape_of

    law, _ = shape_of(lawfile.load(args.anchor))
    source = text_of(args)
    asked = {name: getattr(args, name) for name in ("flops", "minutes", "chip", "anchor")}
    asked |= {"text": source.name, "fingerprint": source.fingerprint}
    (config,) = runs_of(args.out, asked, lambda: [_planned(args, law, source)])
    train(config, "the anchor's run")
    return law_of_anchor(
        Path(config.out), law=law, text=source, name=args.name or "anchor", out=args.out
    )


def _planned(args: argparse.Namespace, law: Any, source: Any) -> RunConfig:
    from llm_jax.plan.anchor import anchor_config, plan_anchor
    from llm_jax.plan.this_machine import chip_named

    chip = chip_named(args.chip, args.remeasure)
    made = plan_anchor(law, source, chip, flops=args.flops, minutes=args.minutes)
    print(
        f"1 run of {made.params:,} parameters on {made.tokens:,} tokens, {made.flops:.3g} FLOPs, "
        f"about {made.hours * 60:.1f} minutes of training steps.",
        file=sys.stderr,
    )
    return reading(args, anchor_config(made, args.data or source.path))


def anchored_text(result: dict[str, Any]) -> str:
    run = result["anchor"]
    lines = [
        f"{run['params']:,} parameters on {run['tokens']:,} tokens of your text: {run['loss']:.4f} "
        f"nats per token. The law of {run['text']} says {run['before']:.4f}.",
        "",
        f"L = {result['E']:.3f} + {result['A']:.4g}/N^{result['alpha']:.3f} + "
        f"{result['B']:.4g}/D^{result['beta']:.3f}.",
        *(f"note: {note}" for note in result["warnings"]),
        "",
        f"Wrote {result['law']}.",
        f"Next: llm-jax plan --law {result['law']} --chip local --chips 1 --deadline-hours 0.05",
    ]
    return "\n".join(lines)
