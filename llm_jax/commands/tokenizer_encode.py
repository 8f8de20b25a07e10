"""Turn text into token ids. Without TEXT, it reads standard input.

llm-jax tokenizer encode --tokenizer tokenizer.model "def main():"
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from llm_jax.commands import TOKENIZER_HELP
from llm_jax.config import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tokenizer", required=True, metavar="PATH", help=TOKENIZER_HELP)
    parser.add_argument("text", nargs="?", metavar="TEXT", help="text to encode")


def run(args: argparse.Namespace) -> dict[str, Any]:
    from llm_jax.data.tokenizers import Tokenizer

    tokenizer = Tokenizer.load(args.tokenizer)
    given = _standard_input() if args.text is None else args.text
    ids = tokenizer.encode(given)
    return {
        "vocab_size": tokenizer.vocab_size,
        "bytes_per_token": len(given.encode()) / len(ids) if ids else None,
        "ids": ids,
        "pieces": tokenizer.pieces(ids),
    }


def text(result: dict[str, Any]) -> str:
    return " ".join(map(str, result["ids"]))


def _standard_input() -> str:
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        raise UserError(f"Standard input is not UTF-8 ({error.reason}): convert it.") from None
