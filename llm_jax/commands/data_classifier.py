"""Train a classifier of text quality from good and bad examples, for the step `classifier`.

  llm-jax data classifier --good reference/ --bad crawl.jsonl --out quality.safetensors

It is linear, over hashed words and pairs of words. One example of five is held out to measure with.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_jax.commands.text_report import loss_lines
from llm_jax.config import UserError

if TYPE_CHECKING:
    from llm_jax.data.sources import LeftOut


def add_arguments(parser: argparse.ArgumentParser) -> None:
    for kind, what in (("good", "to keep"), ("bad", "to drop")):
        parser.add_argument(
            f"--{kind}",
            nargs="+",
            type=Path,
            required=True,
            metavar="PATH",
            help=f"files or folders with examples of text {what}",
        )
    parser.add_argument(
        "--text-key",
        default="text",
        metavar="KEY",
        help="field of JSON records (default: %(default)s)",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="file to write")
    parser.add_argument("--overwrite", action="store_true", help="replace FILE")


def run(args: argparse.Namespace) -> dict[str, Any]:
    from llm_jax.data.curate.quality_model import train
    from llm_jax.data.sources import LeftOut

    if args.out.exists() and not args.overwrite:
        raise UserError(f"--out {str(args.out)!r} exists: choose another file, or --overwrite.")
    left_out = LeftOut()
    examples = (_texts(paths, args.text_key, left_out) for paths in (args.good, args.bad))
    model, facts = train(*examples)
    model.save(args.out, facts)
    return {
        "out": str(args.out),
        **facts,
        "lost": left_out.summary(facts["good"] + facts["bad"]),
    }


def _texts(paths: list[Path], text_key: str, left_out: LeftOut) -> Iterator[str]:
    from llm_jax.commands.sources import curated_of
    from llm_jax.data.curate.curated import is_curated
    from llm_jax.data.sources import FileSource

    for path in paths:
        for source in (
            curated_of(path) if is_curated(path) else (FileSource(path, text_key=text_key),)
        ):
            for document in source.documents(left_out):
                yield document.text


def text(result: dict[str, Any]) -> str:
    lines = [
        f"{result['out']}: trained on {result['good']:,} good and {result['bad']:,} bad documents",
        f"  held out   a fifth of them: {result['accuracy']:.1%} are classified correctly, AUC "
        f"{result['auc']:.3f}",
        *loss_lines(result["lost"]),
    ]
    return "\n".join(lines)
