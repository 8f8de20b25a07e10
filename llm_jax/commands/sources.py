"""Flags for which text to read and how to clean it, shared by the verbs that build from text."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from llm_jax.commands import count
from llm_jax.config import UserError
from llm_jax.config.dataset_info import INTERNAL, Class

if TYPE_CHECKING:
    from llm_jax.config.sources import SourceSpec
    from llm_jax.data.clean import Cleaner
    from llm_jax.data.sources import Source


def add_source_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("text")
    group.add_argument(
        "--input",
        nargs="+",
        action="extend",
        default=[],
        metavar="PATH",
        help="files, folders, patterns with `*`, and addresses such as gs://bucket/folder; options "
        "of one behind it: PATH,licence=CC0-1.0,class=public,text_key=body",
    )
    group.add_argument(
        "--sources",
        metavar="FILE",
        help="JSON file that names inputs, each with its options",
    )
    group.add_argument(
        "--stdlib", action="store_true", help="the running Python's standard library"
    )
    group.add_argument(
        "--source",
        nargs="+",
        default=[],
        metavar="FILE.py:NAME",
        help="functions of your own that yield texts, or entry points of llm_jax.sources",
    )
    group.add_argument("--tfds", metavar="NAME", help="a registered tfds text dataset")
    group.add_argument(
        "--tfds-split",
        default="train",
        metavar="SPLIT",
        help="split of NAME (default: %(default)s)",
    )
    group.add_argument("--tfds-dir", type=Path, metavar="DIR", help="where tfds keeps its datasets")
    group.add_argument(
        "--encoding",
        default="utf-8",
        help="encoding of the files, such as cp932 (default: %(default)s)",
    )
    group.add_argument(
        "--text-key",
        default="text",
        metavar="KEY",
        help="field of records and tfds examples, a path such as data.body, or a template such as "
        "'{title}\\n\\n{body}' (default: %(default)s)",
    )
    group.add_argument(
        "--metadata",
        nargs="+",
        action="extend",
        default=[],
        metavar="FIELD",
        help="fields of records that travel with the text, such as url, date, language, id",
    )
    group.add_argument(
        "--max-document-bytes",
        type=count,
        default=256_000_000,
        metavar="N",
        help="leave out longer documents and longer lines of JSON (default: 256M)",
    )
    group.add_argument(
        "--licence",
        default="",
        metavar="NAME",
        help="licence of the text, stored with the dataset (default: that of the tfds dataset, "
        "else unknown)",
    )
    group.add_argument(
        "--class",
        dest="class_",
        choices=get_args(Class),
        default=INTERNAL,
        help="who may see the text, and what is made of it (default: %(default)s)",
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
        choices=("none", "aozora", "html"),
        default="none",
        help="markup to remove; aozora: ruby and notes of Aozora Bunko; html: all but the main "
        "text of pages in records (default: %(default)s)",
    )
    group.add_argument(
        "--min-chars",
        type=count,
        default=1,
        metavar="N",
        help="drop shorter documents (default: %(default)s)",
    )


def sources_of(args: argparse.Namespace) -> tuple[Source, ...]:
    """The sources that the flags name; raises `UserError` if none is given, or one is missing."""
    from llm_jax.config.extensions import load_part
    from llm_jax.config.sources import input_spec, read_sources
    from llm_jax.data.curate.curated import CuratedSource, is_curated
    from llm_jax.data.sources import OwnSource, StdlibSource, TfdsSource

    specs = [*map(input_spec, args.input), *(read_sources(args.sources) if args.sources else ())]
    sources: list[Source] = []
    for spec in specs:
        if is_curated(Path(spec.input)):
            _refuse_options(spec)
            sources += curated_of(Path(spec.input))
        else:
            sources.append(_files(spec, args))
    if args.stdlib:
        sources.append(StdlibSource())
    if args.tfds:
        sources.append(
            TfdsSource(
                args.tfds,
                args.tfds_split,
                args.text_key,
                args.tfds_dir,
                args.licence,
                args.class_,
                tuple(args.metadata),
                args.clean,
            )
        )
    sources += [
        OwnSource(name, load_part("--source", name), _licence(args), args.class_, args.clean)
        for name in args.source
    ]
    if args.licence and sources and all(isinstance(one, CuratedSource) for one in sources):
        raise UserError(
            f"--licence is {args.licence!r}, but all documents are curated, and have the licence "
            "that `data curate` was given: leave it out here, and give it there."
        )
    if not sources:
        raise UserError(
            "There is no text: give --input PATH, --sources FILE, --stdlib, --source FILE.py:NAME "
            "or --tfds NAME."
        )
    return tuple(sources)


def _refuse_options(spec: SourceSpec) -> None:
    """Raises `UserError` if `spec`, which names curated documents, has options."""
    from llm_jax.config.sources import OPTIONS

    given = [name for name in OPTIONS if getattr(spec, "class_" if name == "class" else name)]
    if given:
        raise UserError(
            f"--input {spec.input!r} holds curated documents, which have their own {given[0]}: "
            f"give {', '.join(given)} to `data curate` instead."
        )


def curated_of(folder: Path) -> tuple[Source, ...]:
    """The sources of a folder that `data curate` wrote; raises `UserError` if it is damaged."""
    from llm_jax.data.curate.curated import curated_sources

    return tuple(curated_sources(folder))


def _licence(args: argparse.Namespace) -> str:
    return args.licence or "unknown"


def _files(spec: SourceSpec, args: argparse.Namespace) -> Source:
    """The files of `spec`; what it leaves open, the flags say."""
    from llm_jax.data.sources import FileSource

    return FileSource(
        spec.input,
        spec.encoding or args.encoding,
        spec.text_key or args.text_key,
        spec.licence or _licence(args),
        args.max_document_bytes,
        spec.class_ or args.class_,
        spec.name,
        tuple(args.metadata) if spec.metadata is None else spec.metadata,
        spec.markup or args.clean,
    )


def cleaner_of(args: argparse.Namespace) -> Cleaner:
    from llm_jax.data.clean import Cleaner

    return Cleaner(normalize=args.normalize, min_chars=args.min_chars)


def add_vocabulary_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--character-coverage",
        type=float,
        metavar="F",
        help="share of the text's characters that get a piece, the others become bytes (default: "
        "0.9995, or as much as half of the vocabulary can hold)",
    )
    add_sample_argument(parser)


def add_sample_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--sample-bytes",
        type=count,
        default=100_000_000,
        metavar="N",
        help="most text to train the tokenizer on (default: 100M)",
    )
