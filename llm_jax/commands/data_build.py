"""Build a cleaned, deduplicated, tokenised tfds dataset from files, with provenance.

  llm-jax data build --stdlib --vocab-size 8192 --out data/stdlib
  llm-jax data build --input novels/ --encoding cp932 --clean aozora --vocab-size 8192 --out data/ja

If DIR already holds a build of the same inputs and settings, it is kept. Text that could not be
used is counted, and listed in left_out.jsonl.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from llm_jax.commands import TOKENIZER_HELP, pieces, seed
from llm_jax.commands.data_curate import RECIPE_HELP, curated, curation_tasks
from llm_jax.commands.progress_line import ProgressReporter
from llm_jax.commands.sources import (
    add_source_arguments,
    add_vocabulary_arguments,
    cleaner_of,
    curated_of,
    sources_of,
)
from llm_jax.commands.task_places import (
    FINGERPRINT,
    PlannedTasks,
    add_task_arguments,
    dry_run,
    dry_run_text,
    workers_of,
)
from llm_jax.commands.text_report import (
    coverage_text,
    held_out_line,
    loss_lines,
    losses,
    source_lines,
    split_lines,
)
from llm_jax.config.wording import counted


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder of the dataset to write"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace a different dataset in DIR"
    )
    tokenizer = parser.add_mutually_exclusive_group(required=True)
    tokenizer.add_argument("--tokenizer", metavar="PATH", help=TOKENIZER_HELP)
    tokenizer.add_argument(
        "--vocab-size",
        type=pieces,
        metavar="N",
        help="train a tokenizer with N pieces on this text",
    )
    parser.add_argument(
        "--not-exportable",
        action="store_true",
        help="allow a tokenizer whose models cannot be exported",
    )
    add_vocabulary_arguments(parser)
    parser.add_argument(
        "--validation-fraction",
        type=float,
        default=0.02,
        metavar="F",
        help="share of the text to hold out (default: %(default)s)",
    )
    parser.add_argument(
        "--seed", type=seed, default=0, help="seed of the document order (default: %(default)s)"
    )
    parser.add_argument(
        "--recipe", metavar="RECIPE", help=f"curate first, into DIR-curated: {RECIPE_HELP}"
    )
    add_task_arguments(parser)
    add_source_arguments(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    if args.dry_run:
        return dry_run(args, planned_tasks(args))
    from llm_jax.data.build import BuildSpec, VocabSpec, build, check_out
    from llm_jax.data.tokenizers import Tokenizer

    tokenizer: Tokenizer | VocabSpec
    if args.tokenizer is not None:
        tokenizer = Tokenizer.load(args.tokenizer)
        if not args.not_exportable:
            from llm_jax.convert.hf_tokenizer import require_exportable

            require_exportable(tokenizer, ", or give --not-exportable")
    else:
        tokenizer = VocabSpec(
            vocab_size=args.vocab_size,
            character_coverage=args.character_coverage,
            sample_bytes=args.sample_bytes,
        )
    spec = BuildSpec(
        sources=sources_of(args),
        cleaner=cleaner_of(args),
        tokenizer=tokenizer,
        validation_fraction=args.validation_fraction,
        seed=args.seed,
        strict=args.strict,
        max_left_out=args.max_left_out,
    )
    with workers_of(args) as workers:
        made = None
        if args.recipe is not None:
            check_out(args.out)
            folder = _beside(args.out)
            counts_with = tokenizer if isinstance(tokenizer, Tokenizer) else None
            whole = curated(args, folder, workers, counts_with, overwrite=args.overwrite)
            made = {name: whole[name] for name in ("out", "page", "documents", "lost")}
            spec = replace(spec, sources=curated_of(folder))
        with ProgressReporter() as progress:
            info, built_before = build(spec, args.out, progress, args.overwrite, **workers)
    return {"out": str(args.out), "built_before": built_before, "curated": made, **info}


def planned_tasks(args: argparse.Namespace) -> list[PlannedTasks]:
    """What `--dry-run` shows."""
    from llm_jax.data.build import TASK
    from llm_jax.data.tasks.work_folder import work_folder

    work = str(work_folder(args.out, "build", FINGERPRINT))
    return [
        *(curation_tasks(args, _beside(args.out)) if args.recipe is not None else []),
        *(PlannedTasks(TASK, (work, name, "SHARD"), "SHARDS") for name in ("read", "encode")),
    ]


def _beside(out: Path) -> Path:
    """Where the curated documents of the dataset `out` are."""
    if out.name in ("", ".."):
        out = Path(os.path.realpath(out))
    return out.with_name(f"{out.name}-curated")


def _curated_lines(made: dict[str, Any] | None) -> list[str]:
    if made is None:
        return []
    came, left = made["documents"]["in"], made["documents"]["out"]
    lost = loss_lines(made["lost"], Path(made["out"], "left_out.jsonl"))
    return [
        f"  curated    {came:,} in, {left:,} out; see {made['page']}",
        *(f"  {line}" for line in lost),
    ]


def text(result: dict[str, Any]) -> str:
    if "actions" in result:
        return dry_run_text(result)
    from llm_jax.data.fidelity import sentences

    documents = result["documents"]
    lines = [
        f"{result['out']}: {'already built' if result['built_before'] else 'built'}",
        *_curated_lines(result["curated"]),
        f"  documents  {documents['in']:,} in, {documents['out']:,} out "
        f"(dropped: {losses(result['dropped'])})",
        f"  licences   {', '.join(f'{name} {n:,}' for name, n in result['licences'].items())}",
        f"  tokens     {result['tokens']:,} of vocabulary {result['vocab_size']:,}, "
        f"{result['bytes'] / result['tokens']:.2f} bytes per token"
        + coverage_text(result.get("character_coverage")),
    ]
    lines += split_lines(result["splits"])
    lines.append(f"  held out   {held_out_line(result)}")
    if spelled := result.get("special_as_text"):
        lines.append(
            f"  special    {counted(spelled, 'document')} of a split "
            f"{'spells a special token' if spelled == 1 else 'spell special tokens'}, which are "
            "text there"
        )
    lines += source_lines(result["sources"])
    lines += [f"  {line}" for line in sentences(result.get("tokenizer_fidelity", ()))]
    lines += loss_lines(result["lost"], Path(result["out"], "left_out.jsonl"))
    return "\n".join(lines)
