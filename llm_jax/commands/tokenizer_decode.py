"""Turn token ids into text. Without IDs, it reads them from standard input.

llm-jax tokenizer decode --tokenizer tokenizer.model 453 1022 17
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from llm_jax.commands import TOKENIZER_HELP
from llm_jax.config import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tokenizer", required=True, metavar="PATH", help=TOKENIZER_HELP)
    parser.add_argument("ids", nargs="*", metavar="ID", help="token ids")


def run(args: argparse.Namespace) -> dict[str, Any]:
    from llm_jax.data.tokenizers import Tokenizer

    tokenizer = Tokenizer.load(args.tokenizer)
    words = args.ids or sys.stdin.read().split()
    try:
        ids = [int(word) for word in words]
    except ValueError as error:
        raise UserError(f"Token ids must be whole numbers ({error}).") from None
    decoded = tokenizer.decode(ids)
    return {
        "vocab_size": tokenizer.vocab_size,
        "bytes_per_token": len(decoded.encode()) / len(ids) if ids else None,
        "text": decoded,
    }


def text(result: dict[str, Any]) -> str:
    return result["text"]
