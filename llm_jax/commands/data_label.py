"""Build a dataset of labelled examples, on which `train --init` fine-tunes an encoder.

  llm-jax data label --input reviews.jsonl --tokenizer runs/bert_tiny --out data/reviews
  llm-jax train --init runs/bert_tiny --data.path data/reviews --out runs/reviews

The fields of the first record say what is learned. text, label, and text_pair for pairs: a label of
the text. words, tags: one of each word. question, context, answers {text, answer_start}: the place
of the answer. text, text_pair, with or without score: vectors of sentences. CSV and TSV files name
the fields in their first row. Records that cannot be used are counted and listed (left_out.jsonl).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from llm_jax.commands import TOKENIZER_HELP, count
from llm_jax.commands.progress_line import ProgressReporter
from llm_jax.commands.text_report import loss_lines, losses
from llm_jax.config.wording import counted


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--input", nargs="+", type=Path, required=True, metavar="FILE", help="JSONL, JSON, CSV, TSV"
    )
    parser.add_argument("--tokenizer", required=True, metavar="PATH", help=TOKENIZER_HELP)
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder of the dataset to write"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace a different dataset in DIR"
    )
    parser.add_argument(
        "--validation", nargs="+", type=Path, default=[], metavar="FILE", help="held-out examples"
    )
    parser.add_argument(
        "--validation-fraction",
        type=float,
        default=0.1,
        metavar="F",
        help="without --validation: share to hold out, by a hash of text (default: %(default)s)",
    )
    parser.add_argument(
        "--length",
        type=count,
        metavar="N",
        help="tokens of a row (default: those of the longest example, at most 512)",
    )
    parser.add_argument(
        "--licence", default="unknown", help="licence of the examples (default: %(default)s)"
    )
    parser.add_argument(
        "--class",
        dest="class_",
        choices=("public", "internal", "restricted"),
        default="internal",
        help="who may see the examples, and what is made of them (default: %(default)s)",
    )
    parser.add_argument(
        "--max-left-out",
        type=float,
        default=0.5,
        metavar="F",
        help="share of records that may be unusable (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    from llm_jax.data.labelled.build import LabelSpec, build_examples
    from llm_jax.data.tokenizers import Tokenizer

    spec = LabelSpec(
        inputs=tuple(args.input),
        held_out=tuple(args.validation),
        tokenizer=Tokenizer.load(args.tokenizer),
        length=args.length,
        fraction=args.validation_fraction,
        licence=args.licence,
        class_=args.class_,
        max_left_out=args.max_left_out,
    )
    with ProgressReporter() as progress:
        info, built_before = build_examples(spec, args.out, progress, args.overwrite)
    return {"out": str(args.out), "built_before": built_before, **info}


def text(result: dict[str, Any]) -> str:
    documents, made = result["documents"], result["examples"]
    lines = [
        f"{result['out']}: {'already built' if result['built_before'] else 'built'}",
        f"  examples   {documents['in']:,} in, {documents['out']:,} out "
        f"(dropped: {losses(result['dropped'])})",
        *example_lines(result),
    ]
    if made["cut"]:
        lines.append(f"  cut        {counted(made['cut'], 'example')}: give a longer --length")
    if made["words_without_a_token"]:
        words = counted(made["words_without_a_token"], "word")
        lines.append(f"  tags       {words} without a token of their own, not learned")
    lines += loss_lines(result["lost"], Path(result["out"], "left_out.jsonl"))
    return "\n".join(lines)


def example_lines(info: dict[str, Any]) -> list[str]:
    """What a dataset's examples are for, and how many there are."""
    made, splits = info["examples"], info["splits"]
    labels = made["labels"]
    shown = f", {counted(len(labels), 'label')}: {', '.join(labels[:8])}" if labels else ""
    more = ", …" if labels[8:] else ""
    return [
        f"  kind       {made['kind']}, rows of {made['length']:,} tokens{shown}{more}",
        *(f"  {name:<11}{counted(one['documents'], 'example')}" for name, one in splits.items()),
    ]
