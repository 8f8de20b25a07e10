"""`eval` of an encoder with a head: loss and figures on labelled examples."""

from __future__ import annotations

import argparse
from typing import Any

from llm_jax.commands.progress_line import ProgressReporter
from llm_jax.commands.text_report import loss_lines
from llm_jax.config import UserError


def evaluated(args: argparse.Namespace, trained: Any) -> dict[str, Any]:
    """What `eval` returns; raises `UserError` for flags that are for text."""
    from llm_jax.data.sources.left_out import LeftOut
    from llm_jax.evals.labelled import LabelledEvaluator, held_out, read_file

    for name in ("ngram", "task", "tasks", "keep"):
        if getattr(args, name):
            raise UserError(
                f"--{name} is for models of text, and the run's objective is "
                f"{trained.config.objective!r}: leave it out."
            )
    if args.encoding.lower() not in ("utf-8", "utf8"):
        raise UserError(
            f"--encoding is {args.encoding!r}, but labelled examples are read as UTF-8: convert "
            "the files."
        )
    config, tokenizer, left_out = trained.config, trained.tokenizer, LeftOut()
    given = {str(path): read_file(path, config, tokenizer, left_out) for path in args.text}
    parts = given or {"validation split": held_out(config, tokenizer)}
    with ProgressReporter() as progress:
        evaluator = LabelledEvaluator(config, trained.params, tokenizer)
        figures = {name: evaluator.measure(part, progress) for name, part in parts.items()}
    used = sum(part.windows for part in parts.values())
    return {
        "step": trained.step,
        "verified": trained.verified,
        "labelled": figures,
        "dropped": left_out.dropped(),
        "lost": left_out.summary(used),
    }


def labelled_text(result: dict[str, Any]) -> str:
    """The same for a person."""
    lines = []
    for name, figures in result["labelled"].items():
        shown = ", ".join(f"{key} {v:.4f}" for key, v in figures.items() if key != "examples")
        lines.append(f"{name}: {shown} ({figures['examples']:,} examples)")
    return "\n".join([*lines, *loss_lines(result["lost"])])
