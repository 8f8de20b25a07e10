"""From sources to a dataset on disk: read, clean, deduplicate, tokenise, write, with provenance.

    <out>/dataset.json       provenance and counts
    <out>/files.jsonl        every file that was read, with its hash
    <out>/left_out.jsonl     what was not used: file, line, reason
    <out>/tokenizer.model    the SentencePiece model, or <out>/tokenizer/tokenizer.json
    <out>/tokens/1.0.0/      tfds dataset: splits `train` and `validation`

The work is done in tasks (`building/`), in a folder beside `<out>`: if the process is killed, the
same call goes on from there, and one with other settings removes it at its end. `<out>` appears at
the very end.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from llm_jax import __version__
from llm_jax.config import INFO_FILE, UserError, read_dataset_info
from llm_jax.config.dataset_info import DATASET_FORMAT
from llm_jax.data.building.reading import read_corpus
from llm_jax.data.building.task import run_task
from llm_jax.data.building.work import Work
from llm_jax.data.clean import Cleaner
from llm_jax.data.corpus import Corpus, Progress
from llm_jax.data.made_before import same_or_replaceable
from llm_jax.data.provenance import source_records
from llm_jax.data.sources import LeftOut, Source
from llm_jax.data.sources.left_out import MOST_LEFT_OUT
from llm_jax.data.streams import Splits, tokenise
from llm_jax.data.tasks.spread import Spread
from llm_jax.data.tasks.work_folder import stale_work, work_folder
from llm_jax.data.tasks.workers import Workers
from llm_jax.data.tokenizers import Tokenizer
from llm_jax.data.vocabulary import VocabSpec, train_tokenizer
from llm_jax.runs.claim import only_writer
from llm_jax.runs.files import delete_folder, new_folder
from llm_jax.runs.tasks import StartTasks

RECORD_TOKENS = 2048
LEFT_OUT_FILE = "left_out.jsonl"
TASK = "llm_jax.data.building.task"


@dataclass(frozen=True, kw_only=True)
class BuildSpec:
    """The inputs and settings of a dataset. Equal specs over equal files give equal datasets.

    Attributes:
      validation_fraction: share of the text to hold out, above 0 and at most 0.5.
      strict: the first loss ends the build.
      max_left_out: share of losses above which the build fails, from 0 to 1.
    """

    sources: tuple[Source, ...]
    tokenizer: Tokenizer | VocabSpec
    cleaner: Cleaner = field(default_factory=Cleaner)
    validation_fraction: float = 0.02
    seed: int = 0
    strict: bool = False
    max_left_out: float = MOST_LEFT_OUT

    def __post_init__(self) -> None:
        if not self.sources:
            raise UserError("There is nothing to build from: give --input, --stdlib or --tfds.")
        if not 0 < self.validation_fraction <= 0.5:
            raise UserError(
                f"--validation-fraction is {self.validation_fraction}: give a number above 0 and "
                "at most 0.5."
            )
        self.left_out()

    def left_out(self) -> LeftOut:
        """An empty record of losses; raises `UserError` if `max_left_out` is not from 0 to 1."""
        return LeftOut(self.strict, self.max_left_out)

    def fingerprint(self) -> str:
        """Hex digest of all inputs and settings, including the files' contents."""
        tokenizer = self.tokenizer
        parts = {
            "format": DATASET_FORMAT,
            "sources": [source.fingerprint() for source in self.sources],
            "cleaner": asdict(self.cleaner),
            "tokenizer": tokenizer.sha256
            if isinstance(tokenizer, Tokenizer)
            else asdict(tokenizer),
            "validation_fraction": self.validation_fraction,
            "seed": self.seed,
            "record_tokens": RECORD_TOKENS,
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def build(
    spec: BuildSpec,
    out: Path,
    progress: Progress,
    overwrite: bool = False,
    *,
    workers: int | StartTasks = 1,
    say: Callable[[str], None] = print,
) -> tuple[dict[str, Any], bool]:
    """Builds the dataset `out`, unless it is already there.

    Args:
      workers: tasks at a time, each in a process; 1: all in this one; or what runs tasks
        elsewhere.
      say: takes warnings, one sentence each.

    Returns:
      The content of dataset.json, and whether the dataset had been built before.

    Raises:
      Held: another process is writing `out`.
      UserError: the corpus is empty, lost too much text or does not fit the vocabulary, or `out`
        holds something else.
      OSError: reading or writing failed. Whatever `out` held before is still there.
    """
    fingerprint = spec.fingerprint()
    if built := _built_before(out, spec, fingerprint, overwrite):
        return built, True
    start = partial(Workers, workers, say) if isinstance(workers, int) else workers
    spread = Spread(run_task, None if workers == 1 else partial(start, module=TASK))
    with only_writer(out, "llm-jax data build"):
        if built := _built_before(out, spec, fingerprint, overwrite):
            return built, True  # by a process that has just ended
        work = Work(work_folder(out, "build", fingerprint), spec.cleaner)
        stale = stale_work(work.folder, say)
        try:
            info = _build_with(spec, fingerprint, out, overwrite, work, spread, progress)
        except BaseException as error:
            mistake = isinstance(error, UserError) and error.exit_code == UserError.exit_code
            if mistake or not spread.used_processes:  # no work that a new start resumes
                delete_folder(work.folder)
            raise
        for folder in (work.folder, *stale):
            delete_folder(folder)
    return info, False


def check_out(out: Path) -> None:
    """Raises `UserError` if `out` holds something other than a dataset."""
    if not out.exists() or (out / INFO_FILE).is_file() or (out.is_dir() and not any(out.iterdir())):
        return
    raise UserError(f"--out {str(out)!r} exists and is not a dataset: choose another folder.")


def _built_before(
    out: Path, spec: BuildSpec, fingerprint: str, overwrite: bool
) -> dict[str, Any] | None:
    """The dataset.json in `out` if the dataset has this fingerprint; None if `out` may be written.

    Raises:
      UserError: `out` holds something else, or has more losses than `spec` accepts.
    """
    check_out(out)
    if not (out / INFO_FILE).is_file():
        return None
    info = _info_of(out, overwrite)
    if info is None:
        return None
    return same_or_replaceable(
        out,
        info,
        fingerprint,
        what="a dataset",
        strict=spec.strict,
        most=spec.max_left_out,
        overwrite=overwrite,
    )


def _info_of(out: Path, overwrite: bool) -> dict[str, Any] | None:
    """The content of dataset.json in `out`; None if it is damaged and may be replaced."""
    try:
        return read_dataset_info(out)
    except UserError:
        if not overwrite:
            raise
        return None


def _build_with(
    spec: BuildSpec,
    fingerprint: str,
    out: Path,
    overwrite: bool,
    work: Work,
    spread: Spread,
    progress: Progress,
) -> dict[str, Any]:
    from llm_jax.data.token_records import write_records

    left_out = spec.left_out()
    corpus = read_corpus(spec.sources, spec.cleaner, work.folder, progress, left_out, spread)
    splits = _split(corpus, spec)
    tokenizer, coverage = _tokenizer(spec, corpus, splits.train, progress)
    corpus.close()
    streams, counts = tokenise(corpus, tokenizer, splits, spec.sources, work, spread, progress)
    part_tokens, compared = counts.pop("part_tokens"), counts.pop("tokenizer_fidelity")
    with new_folder(out, replace=overwrite) as folder:
        progress("writing records", 0, None)
        write_records(folder, streams, RECORD_TOKENS)
        tokenizer.save(folder)
        sources = source_records(spec.sources, corpus, part_tokens, folder)
        left_out.write(folder / LEFT_OUT_FILE)
        info = {
            **_about_documents(sources, corpus, left_out),
            **counts,
            **_about_tokens(spec, tokenizer, coverage, compared),
            "fingerprint": fingerprint,
        }
        text = json.dumps(info, indent=2, ensure_ascii=False) + "\n"
        (folder / INFO_FILE).write_text(text, encoding="utf-8")
    return info


def _about_documents(
    sources: list[dict[str, Any]], corpus: Corpus, left_out: LeftOut
) -> dict[str, Any]:
    dropped = left_out.dropped()
    return {
        "format": DATASET_FORMAT,
        "sources": sources,
        "documents": {"in": corpus.kept + sum(dropped.values()), "out": corpus.kept},
        "dropped": dropped,
        "lost": left_out.summary(corpus.used),
        "licences": dict(corpus.licences.most_common()),
    }


def _about_tokens(
    spec: BuildSpec,
    tokenizer: Tokenizer,
    coverage: float | None,
    compared: list[dict[str, Any]],
) -> dict[str, Any]:
    return {
        "tokenizer_sha256": tokenizer.sha256,
        "tokenizer_fidelity": compared,
        "vocab_size": tokenizer.vocab_size,
        "character_coverage": coverage,
        "record_tokens": RECORD_TOKENS,
        "cleaner": asdict(spec.cleaner),
        "validation_fraction": spec.validation_fraction,
        "seed": spec.seed,
        "versions": {
            "python": platform.python_version(),
            "llm-jax": __version__,
            **{
                name: version(name)
                for name in ("tensorflow-datasets", "sentencepiece", "tokenizers")
            },
        },
    }


def _split(corpus: Corpus, spec: BuildSpec) -> Splits:
    held_out, chosen_by = corpus.hold_out(spec.validation_fraction)
    order = corpus.shuffled(spec.seed)
    return Splits(order[~held_out[order]], order[held_out[order]], chosen_by)


def _tokenizer(
    spec: BuildSpec, corpus: Corpus, order: np.ndarray, progress: Progress
) -> tuple[Tokenizer, float | None]:
    """The tokenizer, and its character coverage if it was trained here."""
    if isinstance(spec.tokenizer, Tokenizer):
        return spec.tokenizer, None
    return train_tokenizer(spec.tokenizer, corpus, order, progress)
