"""The flags that say which text is read and how it is cleaned, shared by the verbs that read it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_jax.commands import count
from llm_jax.config import UserError

if TYPE_CHECKING:
    from llm_jax.data.clean import Cleaner
    from llm_jax.data.sources import Source


def add_source_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("text")
    group.add_argument(
        "--input",
        nargs="+",
        type=Path,
        default=[],
        metavar="PATH",
        help="files, or folders of text and JSON files; gzip and zstd too",
    )
    group.add_argument(
        "--stdlib", action="store_true", help="the running Python's standard library"
    )
    group.add_argument("--tfds", metavar="NAME", help="a registered tfds text set")
    group.add_argument(
        "--tfds-split", default="train", metavar="SPLIT", help="split of it (default: %(default)s)"
    )
    group.add_argument("--tfds-dir", type=Path, metavar="DIR", help="where tfds keeps its sets")
    group.add_argument(
        "--encoding",
        default="utf-8",
        help="of the files, such as cp932 (default: %(default)s)",
    )
    group.add_argument(
        "--text-key",
        default="text",
        metavar="KEY",
        help="field of JSON records and tfds examples (default: %(default)s)",
    )
    group.add_argument(
        "--max-document-bytes",
        type=count,
        default=256_000_000,
        metavar="N",
        help="longer documents, and longer lines of JSON, are losses (default: 256M)",
    )
    group.add_argument(
        "--licence",
        default="",
        metavar="NAME",
        help="licence of the text, recorded in the dataset (default: tfds' own, else unknown)",
    )
    group.add_argument(
        "--strict", action="store_true", help="stop at the first text that cannot be used"
    )
    group.add_argument(
        "--max-left-out",
        type=float,
        default=0.5,
        metavar="F",
        help="fail if more than this share of the documents cannot be used (default: %(default)s)",
    )
    group = parser.add_argument_group("cleaning")
    group.add_argument(
        "--normalize",
        choices=("nfc", "nfkc", "none"),
        default="nfc",
        help="Unicode normal form (default: %(default)s)",
    )
    group.add_argument(
        "--clean",
        choices=("none", "aozora"),
        default="none",
        help="annotation to remove: ruby and notes of Aozora Bunko (default: %(default)s)",
    )
    group.add_argument(
        "--min-chars",
        type=count,
        default=1,
        metavar="N",
        help="drop shorter documents (default: %(default)s)",
    )


def sources_of(args: argparse.Namespace) -> tuple[Source, ...]:
    """The sources that the flags name; raises `UserError` if none, or one that does not exist."""
    from llm_jax.data.sources import FileSource, StdlibSource, TfdsSource

    licence = args.licence or "unknown"
    sources: list[Source] = [
        FileSource(path, args.encoding, args.text_key, licence, args.max_document_bytes)
        for path in args.input
    ]
    if args.stdlib:
        sources.append(StdlibSource())
    if args.tfds:
        sources.append(
            TfdsSource(args.tfds, args.tfds_split, args.text_key, args.tfds_dir, args.licence)
        )
    if not sources:
        raise UserError("There is no text: give --input PATH, --stdlib or --tfds NAME.")
    return tuple(sources)


def cleaner_of(args: argparse.Namespace) -> Cleaner:
    from llm_jax.data.clean import Cleaner

    return Cleaner(normalize=args.normalize, markup=args.clean, min_chars=args.min_chars)


def add_vocabulary_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--character-coverage",
        type=float,
        metavar="F",
        help="part of the text whose characters get a piece; others become bytes "
        "(default: 0.9995, or what half of the vocabulary holds)",
    )
    parser.add_argument(
        "--sample-bytes",
        type=count,
        default=100_000_000,
        metavar="N",
        help="text that the tokenizer is trained on at most (default: 100M)",
    )


def losses(dropped: dict[str, int]) -> str:
    """Dropped documents by reason, for a person."""
    return ", ".join(f"{reason} {n:,}" for reason, n in dropped.items()) or "none"


def loss_lines(lost: dict[str, Any], named_in: Path | None = None) -> list[str]:
    """The last sentence of what a verb says that read text; none if all of it could be used.

    Args:
      lost: what `LeftOut.summary` gives.
      named_in: file that names each loss.
    """
    from llm_jax.data.sources.left_out import reasons

    if not lost["count"]:
        return []
    share = lost["count"] / lost["of"]
    most = "Most of the text is missing: " if share > 0.5 else ""
    where = f" See {named_in}." if named_in else ""
    return [
        f"{most}{lost['count']:,} of {lost['of']:,} documents ({share:.1%}) could not be used: "
        f"{reasons(lost)}.{where}"
    ]


def coverage_text(coverage: float | None) -> str:
    """What to say of the characters of a tokenizer that was trained; empty if all have a piece."""
    from llm_jax.data.tokenizer import COVERAGE

    if coverage is None or coverage >= COVERAGE:
        return ""
    return f", {coverage:.2%} of the characters have a piece, the others are bytes"


def split_lines(splits: dict[str, dict[str, int]]) -> list[str]:
    """What each split of a dataset holds."""
    return [
        f"  {name:<11}{split['tokens']:,} tokens of {split['documents']:,} "
        f"document{'' if split['documents'] == 1 else 's'}"
        for name, split in splits.items()
    ]


CHOSEN_BY = {
    "text": "",
    "size": "; chosen in a random order until they were enough",
    "position": "; documents are too large, so the end of each large one is held out",
    "document": "; there is too little text to cut, so the smallest document is held out",
}


def held_out_line(info: dict[str, Any]) -> str:
    """How much of a dataset's text is held out, how it was chosen, and that it is not in train."""
    held_out = info["held_out"]
    return (
        f"{held_out['share']:.2%} of the text, {held_out['also_in_train']:,} of its documents also "
        f"in train{CHOSEN_BY[held_out['chosen_by']]}"
    )
