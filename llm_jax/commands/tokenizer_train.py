"""Train a lossless tokenizer on text: BPE or Unigram with byte fallback, or byte-level BPE.

  llm-jax tokenizer train --stdlib --vocab-size 8192 --out tokenizer.model
  llm-jax tokenizer train --stdlib --vocab-size 8192 --kind byte-level --out my-tokenizer

A name that ends in .model is a SentencePiece model. Any other is a folder that transformers loads,
with tokenizer.json and, but for byte-level, the SentencePiece model too.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from llm_jax.commands import pieces, seed
from llm_jax.commands.progress_line import ProgressReporter
from llm_jax.commands.sources import (
    add_source_arguments,
    add_vocabulary_arguments,
    cleaner_of,
    sources_of,
)
from llm_jax.commands.text_report import coverage_text, loss_lines, losses
from llm_jax.config import TokenizerKind, UserError
from llm_jax.config.wording import counted
from llm_jax.runs.files import new_folder, scratch, write_bytes

if TYPE_CHECKING:
    from llm_jax.data.tokenizers import Tokenizer

MEASURED_BYTES = 2_000_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--vocab-size", type=pieces, required=True, metavar="N", help="number of pieces"
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="PATH", help="file *.model or folder to write"
    )
    parser.add_argument(
        "--kind",
        choices=get_args(TokenizerKind),
        default="bpe",
        help="bpe and unigram are SentencePiece models (default: %(default)s)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing PATH")
    parser.add_argument(
        "--seed", type=seed, default=0, help="seed of the text sample (default: %(default)s)"
    )
    add_vocabulary_arguments(parser)
    add_source_arguments(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    from llm_jax.data.building.reading import read_corpus
    from llm_jax.data.sources import LeftOut
    from llm_jax.data.vocabulary import VocabSpec, take, train_tokenizer

    out: Path = args.out
    if out.exists() and not args.overwrite:
        raise UserError(f"--out {str(out)!r} exists: choose another name, or give --overwrite.")
    _refuse_other(out)
    if out.suffix == ".model" and args.kind == "byte-level":
        raise UserError(
            f"--out is {str(out)!r}, a SentencePiece model, which --kind byte-level does not make: "
            "give the name of a folder."
        )
    spec = VocabSpec(
        vocab_size=args.vocab_size,
        kind=args.kind,
        character_coverage=args.character_coverage,
        sample_bytes=args.sample_bytes,
    )
    sources, cleaner = sources_of(args), cleaner_of(args)
    with ProgressReporter() as progress, scratch(out) as folder:
        left_out = LeftOut(args.strict, args.max_left_out)
        corpus = read_corpus(sources, cleaner, folder / "corpus", progress, left_out)
        order = corpus.shuffled(args.seed)
        tokenizer, coverage = train_tokenizer(spec, corpus, order, progress)
        sample = list(take(corpus, order, MEASURED_BYTES))
        corpus.close()
        _write(tokenizer, out, args.overwrite)
    dropped = left_out.dropped()
    return {
        "vocab_size": tokenizer.vocab_size,
        "character_coverage": coverage,
        "bytes_per_token": tokenizer.bytes_per_token(sample),
        "sha256": tokenizer.sha256,
        "path": str(out),
        "documents": {"in": len(corpus) + sum(dropped.values()), "out": len(corpus)},
        "dropped": dropped,
        "lost": left_out.summary(corpus.used),
        "licences": dict(corpus.licences),
    }


def _refuse_other(out: Path) -> None:
    """Raises `UserError` if `out` holds what is not a tokenizer, which --overwrite would take."""
    from llm_jax.data.tokenizers.files import CAME_WITH

    if out.suffix == ".model":
        return
    if out.is_file():
        raise UserError(f"--out {str(out)!r} is a file: name a folder, or a file *.model.")
    others = [one.name for one in out.glob("*") if one.name not in CAME_WITH]
    if others:
        raise UserError(
            f"--out {str(out)!r} holds {min(others)!r}, which is not part of a tokenizer: choose "
            "another folder."
        )


def _write(tokenizer: Tokenizer, out: Path, overwrite: bool) -> None:
    from llm_jax.convert.hf_tokenizer import write

    if out.suffix == ".model":
        write_bytes(out, tokenizer.content)
        return
    with new_folder(out, replace=overwrite) as folder:
        write(folder, tokenizer)


def text(result: dict[str, Any]) -> str:
    lines = [
        f"{result['path']}: {result['vocab_size']:,} pieces, "
        f"{result['bytes_per_token']:.2f} bytes per token"
        f"{coverage_text(result['character_coverage'])}, "
        f"from {counted(result['documents']['out'], 'document')} (dropped: "
        f"{losses(result['dropped'])})",
        *loss_lines(result["lost"]),
    ]
    return "\n".join(lines)
