"""From sources to a folder of curated documents, with a report.

    <out>/curation.json             recipe, sources, and what each step did
    <out>/curation.html             the same, to look at
    <out>/files.jsonl               every file that was read, with its hash
    <out>/left_out.jsonl            what the sources could not give: file, line, reason
    <out>/documents/NNNNN.jsonl.zst (or .parquet) documents with what was done to them

Tasks in other processes read the sources (`reading.py`), and send what was read through the recipe
(`task.py`). The work folder beside `<out>` stays if the process is killed: the same call resumes
there, and one with another recipe removes it at its end.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from llm_jax import __version__
from llm_jax.config import UserError, require, to_dict
from llm_jax.config.extras import require_packages
from llm_jax.data.clean import Cleaner
from llm_jax.data.corpus import Progress
from llm_jax.data.curate.collect import Format, collect
from llm_jax.data.curate.curated import DOCUMENTS, FORMAT, INFO, read_info
from llm_jax.data.curate.draft import HALF
from llm_jax.data.curate.plan import Plan
from llm_jax.data.curate.reading import read_sources
from llm_jax.data.curate.recipe import Recipe
from llm_jax.data.curate.summary import summary
from llm_jax.data.curate.tally import Tally
from llm_jax.data.made_before import same_or_replaceable
from llm_jax.data.provenance import described_sources
from llm_jax.data.sources import LeftOut, Source
from llm_jax.data.sources.left_out import MOST_LEFT_OUT, Unusable
from llm_jax.data.sources.local import local_files
from llm_jax.data.tasks.seen import wait_until
from llm_jax.data.tasks.work_folder import stale_work, work_folder
from llm_jax.data.tasks.workers import Workers
from llm_jax.data.tokenizers import Tokenizer
from llm_jax.runs.claim import only_writer
from llm_jax.runs.files import delete_folder, new_folder, parents_of
from llm_jax.runs.tasks import StartTasks, Tasks

LEFT_OUT_FILE = "left_out.jsonl"
TASK = "llm_jax.data.curate.task"
Write = Callable[[Path, dict[str, Any]], None]
"""Writes the report's page into a folder."""


@dataclass(frozen=True, kw_only=True)
class CurateSpec:
    """The inputs and settings of a curation. Equal specs over equal files give equal documents.

    Attributes:
      tokenizer: counts tokens; None: only documents and bytes are counted.
      format: of the documents' files: JSON lines in zstd, or Parquet.
      strict, max_left_out: as for a build.

    Raises:
      UserError: what `format` needs is not installed, or a source's name cannot be written.
    """

    sources: tuple[Source, ...]
    recipe: Recipe
    cleaner: Cleaner = field(default_factory=Cleaner)
    tokenizer: Tokenizer | None = None
    format: Format = "jsonl"
    strict: bool = False
    max_left_out: float = MOST_LEFT_OUT

    def __post_init__(self) -> None:
        if self.format == "parquet":
            require_packages("Writing Parquet", "pyarrow", way_out="or give --format jsonl")
        for source in self.sources:
            require(
                HALF.search(source.name) is None,
                f"A source has the name {source.name!r}, with half of a surrogate pair: give "
                "it another.",
            )

    def left_out(self) -> LeftOut:
        """An empty record of losses."""
        return LeftOut(self.strict, self.max_left_out)

    def fingerprint(self) -> str:
        """Hex digest of all inputs and settings, including the files' contents."""
        parts = {
            "format": FORMAT,
            "sources": [source.fingerprint() for source in self.sources],
            "recipe": recipe_fingerprint(self.recipe),
            "cleaner": asdict(self.cleaner),
            "tokenizer": self.tokenizer.sha256 if self.tokenizer else None,
            "documents": self.format,
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def recipe_fingerprint(recipe: Recipe) -> str:
    """Hex digest of a recipe and of the files that its steps read, whatever they hold."""
    files = [_digest(Path(file)) for step in recipe.steps for file in step.files()]
    return hashlib.sha256(json.dumps([to_dict(recipe), files]).encode()).hexdigest()


def _digest(path: Path) -> str:
    """Hex digest of the names and bytes of a file, or of a folder's files; a path that cannot be
    read is for the step to refuse."""
    digest = hashlib.sha256()
    with contextlib.suppress(OSError, Unusable):
        for file in local_files(path, LeftOut()):
            with file.open() as stream:
                digest.update(os.fsencode(file.key) + b"\0")
                digest.update(hashlib.file_digest(stream, "sha256").digest())  # type: ignore[arg-type]
    return digest.hexdigest()


def curate(
    spec: CurateSpec,
    out: Path,
    progress: Progress,
    *,
    workers: int | StartTasks,
    say: Callable[[str], None],
    write_page: Write,
    overwrite: bool = False,
) -> tuple[dict[str, Any], bool]:
    """Curates into the folder `out`, unless that is already there.

    Args:
      workers: tasks at a time in processes of this machine, or what runs tasks elsewhere.
      say: takes warnings, one sentence each.

    Returns:
      The content of curation.json, and whether it had been there before.

    Raises:
      Held: another process is writing `out`.
      UserError: a source or a step's file is wrong, nothing is left, or `out` holds something else.
      OSError: reading or writing failed. Whatever `out` held before is still there.
    """
    fingerprint = spec.fingerprint()
    if before := _curated_before(out, spec, fingerprint, overwrite):
        return before, True
    with only_writer(out, "llm-jax data curate"), parents_of(Path(os.path.realpath(out))):
        if before := _curated_before(out, spec, fingerprint, overwrite):
            return before, True  # by a process that has just ended
        work = work_folder(out, "curate", fingerprint)
        stale = stale_work(work, say)
        start = partial(Workers, workers, say) if isinstance(workers, int) else workers
        tasks = partial(start, module=TASK)
        try:
            info = _curate_into(
                spec, fingerprint, out, work, progress, tasks, write_page, overwrite
            )
        except UserError as error:
            if error.exit_code == UserError.exit_code:  # not a failure that a new start resumes
                delete_folder(work)
            raise
        for folder in (work, *stale):
            delete_folder(folder)
    return info, False


def _curate_into(
    spec: CurateSpec,
    fingerprint: str,
    out: Path,
    work: Path,
    progress: Progress,
    workers: Callable[[], Tasks],
    write_page: Write,
    overwrite: bool,
) -> dict[str, Any]:
    plan = Plan(work, spec.recipe)
    left_out = spec.left_out()
    _prepare(plan, spec)
    count, used = _run(plan, spec, left_out, progress, workers)
    tally = Tally(plan.recipe.names())
    for one in plan.tallies(range(count)):
        tally.merge(one)
    if not tally.left.held:
        raise UserError(_why_empty(tally, left_out))
    info = {
        "format": FORMAT,
        "fingerprint": fingerprint,
        "recipe": to_dict(spec.recipe),
        **summary(tally, counts_tokens=spec.tokenizer is not None),
        "skipped": dict(left_out.skipped.most_common()),
        "lost": left_out.summary(used),
        "cleaner": asdict(spec.cleaner),
        "tokenizer_sha256": spec.tokenizer.sha256 if spec.tokenizer else None,
        "versions": {
            "python": platform.python_version(),
            "llm-jax": __version__,
            "zstandard": version("zstandard"),
        },
    }
    with new_folder(out, replace=overwrite) as folder:
        info["sources"] = described_sources(spec.sources, folder)
        info["shards"] = collect(plan, count, folder / DOCUMENTS, spec.format)
        left_out.write(folder / LEFT_OUT_FILE)
        info["tally"] = tally.to_dict()
        write_page(folder, info)
        text = json.dumps(info, indent=1, ensure_ascii=False) + "\n"
        (folder / INFO).write_text(text, encoding="utf-8")
    return info


def _prepare(plan: Plan, spec: CurateSpec) -> None:
    plan.steps_folder.mkdir(parents=True, exist_ok=True)
    for step in spec.recipe.steps:
        step.prepare(plan.steps_folder)
    if spec.tokenizer:
        plan.tokenizer.mkdir(exist_ok=True)
        spec.tokenizer.save(plan.tokenizer)
    plan.write()


def _run(
    plan: Plan,
    spec: CurateSpec,
    left_out: LeftOut,
    progress: Progress,
    workers: Callable[[], Tasks],
) -> tuple[int, int]:
    """Runs all passes; returns the number of shards, and of documents that are not losses."""
    with workers() as tasks:
        count, used = read_sources(plan, spec.sources, spec.cleaner, left_out, progress, tasks)
        left_out.check(used)
        _join(plan, 0, count, tasks)
        for number, this in enumerate(plan.passes[:-1]):
            if this.follows is None or count == 0:
                continue
            progress(f"comparing documents ({this.follows.kind})", 0, None)
            if not plan.resolved(number).is_file():
                tasks.submit(plan.folder, number, "resolve", count)
                tasks.join()
                wait_until(plan.resolved(number).is_file, plan.resolved(number))
            for shard in range(count):
                progress(f"applying the steps from {this.follows.kind} on", shard, count)
                if not plan.is_done(number + 1, shard):
                    tasks.submit(plan.folder, number + 1, shard)
            _join(plan, number + 1, count, tasks)
    return count, used


def _join(plan: Plan, number: int, count: int, tasks: Tasks) -> None:
    """Waits until pass `number` is done."""
    tasks.join()
    for shard in range(count):
        done = partial(plan.is_done, number, shard)
        wait_until(done, plan.shard(number, shard, "tally.json"))


def _curated_before(
    out: Path, spec: CurateSpec, fingerprint: str, overwrite: bool
) -> dict[str, Any] | None:
    """The curation.json in `out` if it has this fingerprint; None if `out` may be written."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    if not (out / INFO).is_file():
        raise UserError(f"--out {str(out)!r} exists and holds no curation: choose another folder.")
    try:
        info = read_info(out)
    except UserError:
        if overwrite:
            return None
        raise
    return same_or_replaceable(
        out,
        info,
        fingerprint,
        what="a curation",
        strict=spec.strict,
        most=spec.max_left_out,
        overwrite=overwrite,
    )


def _why_empty(tally: Tally, left_out: LeftOut) -> str:
    dropped = {
        name: int(sum(amount[0] for amount in step.dropped.held.values()))
        for name, step in tally.steps.items()
    }
    most = [f"{name} {count:,}" for name, count in dropped.items() if count]
    why = [f"{reason} {count:,}" for reason, count in left_out.dropped().items()]
    if most:
        return f"The recipe dropped every document ({', '.join(most)}): loosen its thresholds."
    listed = ", ".join(why) or "no text file was found"
    return f"There is no document to curate ({listed}): check --input."
