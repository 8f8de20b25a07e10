"""Train a classifier of text quality from good and bad examples, for the step `classifier`.

  llm-jax data classifier --good reference/ --bad crawl.jsonl --out quality.safetensors

It is linear, over hashed words and pairs of words. One example of five is held out to measure with.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llm_jax.config import UserError


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

    if args.out.exists() and not args.overwrite:
        raise UserError(f"--out {str(args.out)!r} exists: choose another file, or --overwrite.")
    model, facts = train(*(_texts(paths, args.text_key) for paths in (args.good, args.bad)))
    model.save(args.out, facts)
    return {"out": str(args.out), **facts}


def _texts(paths: list[Path], text_key: str) -> Iterator[str]:
    from llm_jax.data.sources import FileSource, LeftOut

    for path in paths:
        for document in FileSource(path, text_key=text_key).documents(LeftOut()):
            yield document.text


def text(result: dict[str, Any]) -> str:
    return (
        f"{result['out']}: trained on {result['good']:,} good and {result['bad']:,} bad documents\n"
        f"  held out   {result['accuracy']:.1%} of a fifth of them are told right, AUC "
        f"{result['auc']:.3f}"
    )
