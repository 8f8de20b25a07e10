"""Label texts or their words, or find answers in them, with an encoder that was fine-tuned for it.

A model with the head `classify` gives each TEXT a label, with `tag` each of its words (between
spaces), with `answer` the place of the answer to --question, all with probabilities.

examples:
  llm-jax predict runs/reviews "Not bad at all" "Bad, not good"
  llm-jax predict runs/answers "Ann beat Bob in May." --question "Who lost?"
  llm-jax predict runs/reviews --input new.jsonl --json
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from llm_jax.commands import add_checkpoint_arguments
from llm_jax.config import UserError

COMPILES = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run's folder, or a Hugging Face folder")
    parser.add_argument("texts", nargs="*", metavar="TEXT", help="texts, or contexts of --question")
    parser.add_argument("--pair", metavar="TEXT", help="second text of each, for `classify`")
    parser.add_argument("--question", metavar="TEXT", help="what is asked of each, for `answer`")
    parser.add_argument(
        "--input",
        type=Path,
        metavar="FILE",
        help="more records: JSONL, JSON, CSV or TSV with the fields of `data label`",
    )
    add_checkpoint_arguments(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    if not args.texts and args.input is None:
        raise UserError("llm-jax predict needs texts: give TEXT, or --input FILE.")
    from llm_jax.data.labelled.records import read_records
    from llm_jax.infer.labels import predict, require_labels
    from llm_jax.language_model import load_model

    given = read_records(args.input) if args.input is not None else []
    model = load_model(args.run, args.step, verify=not args.no_verify, trust_code=args.trust_code)
    require_labels(model.config)
    head = getattr(model.config, "head", "")
    for flag, wanted in (("question", "answer"), ("pair", "classify")):
        if getattr(args, flag) is not None and head != wanted:
            raise UserError(
                f"--{flag} is for a model of head {wanted!r}, not {head!r}: leave it out."
            )
    if head == "answer" and args.texts and args.question is None:
        raise UserError("The model finds answers: ask with --question.")
    records = [_record(text, head, args) for text in args.texts] + given
    return {
        "head": head,
        "step": model.step,
        "predictions": [_shown(record) | predict(model, record) for record in records],
    }


def _record(text: str, head: str, args: argparse.Namespace) -> dict[str, Any]:
    if head == "tag":
        return {"words": text.split()}
    if head == "answer":
        return {"question": args.question, "context": text}
    return {"text": text} | ({"text_pair": args.pair} if args.pair is not None else {})


def _shown(record: dict[str, Any]) -> dict[str, Any]:
    names = ("text", "text_pair", "question", "context")
    return {name: record[name] for name in names if name in record}


def text(result: dict[str, Any]) -> str:
    lines = []
    for one in result["predictions"]:
        if "label" in one:
            likely = sorted(one["probabilities"].items(), key=lambda pair: -pair[1])[:5]
            shown = ", ".join(f"{name} {p:.3f}" for name, p in likely)
            pair = f" | {one['text_pair']}" if "text_pair" in one else ""
            lines.append(f"{one['text']}{pair}:  {shown}")
        elif "tags" in one:
            pairs = zip(one["words"], one["tags"], strict=True)
            lines.append(" ".join(f"{word}/{tag or '?'}" for word, tag in pairs))
        else:
            lines.append(
                f"{one['question']}  {one['answer'] or 'no answer'} {one['probability']:.3f}"
            )
        if one["cut"]:
            lines[-1] += "  (the text was too long, and was cut)"
    return "\n".join(lines)
