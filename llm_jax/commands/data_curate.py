"""Filter, mask and deduplicate documents by a recipe, and write them with a report.

  llm-jax data curate --input crawl/ --recipe web-en --out data/clean
  llm-jax data curate --input crawl/ --recipe mine.json --tokenizer tokenizer.model --out data/clean

DIR/documents holds what is left, with what was done to it; `data build --input DIR` takes it.
DIR/curation.html shows what each step took. If the program is killed, the same call resumes.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from llm_jax.commands.progress_line import ProgressReporter
from llm_jax.commands.sources import add_source_arguments, cleaner_of, sources_of
from llm_jax.commands.task_places import (
    FINGERPRINT,
    PlannedTasks,
    add_task_arguments,
    dry_run,
    dry_run_text,
    workers_of,
)
from llm_jax.commands.text_report import loss_lines

RECIPE_HELP = "web-en, web-ja, code, books-ja, none, or a JSON file of steps"
PAGE = "curation.html"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--recipe", required=True, metavar="RECIPE", help=RECIPE_HELP)
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder to write")
    parser.add_argument("--overwrite", action="store_true", help="replace other documents in DIR")
    parser.add_argument(
        "--show-recipe", action="store_true", help="print the recipe as JSON, and do nothing else"
    )
    add_task_arguments(parser)
    parser.add_argument(
        "--tokenizer",
        metavar="FILE",
        help="SentencePiece model to count tokens with (default: only documents and bytes)",
    )
    parser.add_argument(
        "--format",
        choices=("jsonl", "parquet"),
        default="jsonl",
        help="of the documents: JSON lines in zstd, or Parquet (default: %(default)s)",
    )
    add_source_arguments(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    from llm_jax.config import UserError, to_dict
    from llm_jax.data.curate.recipe import load_recipe
    from llm_jax.data.tokenizers import Tokenizer

    if args.show_recipe:
        return {"recipe": to_dict(load_recipe(args.recipe))}
    if args.out is None:
        raise UserError("llm-jax data curate needs --out DIR: name a folder to write.")
    if args.dry_run:
        return dry_run(args, planned_tasks(args))
    tokenizer = Tokenizer.load(args.tokenizer) if args.tokenizer is not None else None
    with workers_of(args) as workers:
        return curated(args, args.out, workers, tokenizer, overwrite=args.overwrite)


def curated(
    args: argparse.Namespace,
    out: Path,
    workers: dict[str, Any],
    tokenizer: Any = None,
    *,
    overwrite: bool,
) -> dict[str, Any]:
    """Curates what the flags of the sources name by `args.recipe` into `out`, with what
    `workers_of` gives."""
    from llm_jax.data.curate.curate import CurateSpec, curate
    from llm_jax.data.curate.recipe import load_recipe

    spec = CurateSpec(
        recipe=load_recipe(args.recipe),
        sources=sources_of(args),
        cleaner=cleaner_of(args),
        tokenizer=tokenizer,
        format=getattr(args, "format", "jsonl"),
        strict=args.strict,
        max_left_out=args.max_left_out,
    )
    with ProgressReporter() as progress:
        info, before = curate(
            spec,
            out,
            progress,
            **workers,
            write_page=_write_page,
            overwrite=overwrite,
        )
    for name in ("tally", "shards", "format"):
        info.pop(name)
    return {"out": str(out), "page": str(out / PAGE), "curated_before": before, **info}


def planned_tasks(args: argparse.Namespace) -> list[PlannedTasks]:
    """What `--dry-run` shows."""
    return curation_tasks(args, args.out)


def curation_tasks(args: argparse.Namespace, out: Path) -> list[PlannedTasks]:
    """The tasks of a curation into `out`; raises `UserError` for a wrong recipe."""
    from llm_jax.data.curate.curate import TASK
    from llm_jax.data.curate.plan import Plan
    from llm_jax.data.curate.recipe import load_recipe
    from llm_jax.data.tasks.work_folder import work_folder

    work = work_folder(out, "curate", FINGERPRINT)
    passes = Plan(work, load_recipe(args.recipe)).passes
    planned = [PlannedTasks(TASK, (str(work), "read", "PORTION"), "PORTIONS")]
    for number, this in enumerate(passes):
        place = ("PORTION", "PART", "FIRST") if number == 0 else ()
        shard = (str(work), str(number), "SHARD", *place)
        planned.append(PlannedTasks(TASK, shard, "SHARDS", len(planned)))
        if this.follows is not None:
            every = (str(work), str(number), "resolve", "SHARDS")
            planned.append(PlannedTasks(TASK, every, "1", len(planned)))
    return planned


def _write_page(folder: Path, info: dict[str, Any]) -> None:
    from llm_jax.report.curation_page import page

    (folder / PAGE).write_text(page(info), encoding="utf-8")


def text(result: dict[str, Any]) -> str:
    import json

    if "actions" in result:
        return dry_run_text(result)
    if "out" not in result:
        return json.dumps(result["recipe"], indent=2, ensure_ascii=False)
    documents, size, tokens = (result[name] for name in ("documents", "bytes", "tokens"))
    lines = [
        f"{result['out']}: {'already curated' if result['curated_before'] else 'curated'}",
        f"  documents  {documents['in']:,} in, {documents['out']:,} out",
        f"  bytes      {size['in']:,} in, {size['out']:,} out",
    ]
    if tokens:
        lines.append(f"  tokens     {tokens['in']:,} in, {tokens['out']:,} out")
    width = max((len(step["name"]) for step in result["steps"]), default=0)
    for step in result["steps"]:
        changed = f", changed {step['changed']:,}" if step["changed"] else ""
        lines.append(
            f"  {step['name']:<{width}}  dropped {step['dropped']:,}{changed}, "
            f"{step['bytes']:,} bytes less"
        )
    lines.append(f"  report     {result['page']}")
    return "\n".join(lines + loss_lines(result["lost"], Path(result["out"], "left_out.jsonl")))
