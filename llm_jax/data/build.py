"""From sources to a dataset on disk: read, clean, deduplicate, tokenise, write, with provenance.

    <out>/dataset.json       provenance and counts
    <out>/files.jsonl        every file that was read, with its hash
    <out>/left_out.jsonl     what was not used: file, line, reason
    <out>/tokenizer.model    the SentencePiece model, or <out>/tokenizer/tokenizer.json
    <out>/tokens/1.0.0/      tfds dataset: splits `train` and `validation`

Everything is written to a sibling folder, which is renamed to `<out>` at the very end.
"""

from __future__ import annotations

import hashlib
import json
import platform
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from llm_jax import __version__
from llm_jax.config import INFO_FILE, TokenizerKind, UserError, read_dataset_info
from llm_jax.config.dataset_info import DATASET_FORMAT
from llm_jax.data.clean import Cleaner
from llm_jax.data.corpus import Corpus, Progress, read_corpus
from llm_jax.data.fidelity import compare_sources
from llm_jax.data.made_before import same_or_replaceable
from llm_jax.data.provenance import source_records
from llm_jax.data.sources import LeftOut, Source
from llm_jax.data.sources.left_out import MOST_LEFT_OUT
from llm_jax.data.streams import Splits, tokenise
from llm_jax.data.tokenizers import Tokenizer
from llm_jax.data.tokenizers.training import coverage_within, train
from llm_jax.runs.claim import only_writer
from llm_jax.runs.files import new_folder

RECORD_TOKENS = 2048
LEFT_OUT_FILE = "left_out.jsonl"


@dataclass(frozen=True, kw_only=True)
class VocabSpec:
    """A tokenizer to train on at most `sample_bytes` of the documents.

    SentencePiece takes up to 30 bytes of memory per byte of Japanese, a third of it for English.
    """

    vocab_size: int
    kind: TokenizerKind = "bpe"
    character_coverage: float | None = None
    """None: `coverage_within` decides."""
    sample_bytes: int = 100_000_000


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
    spec: BuildSpec, out: Path, progress: Progress, overwrite: bool = False
) -> tuple[dict[str, Any], bool]:
    """Builds the dataset `out`, unless it is already there.

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
    with only_writer(out, "llm-jax data build"):
        if built := _built_before(out, spec, fingerprint, overwrite):
            return built, True  # by a process that has just ended
        with new_folder(out, replace=overwrite) as folder:
            info = _build_into(folder, spec, progress)
            info["fingerprint"] = fingerprint
            (folder / INFO_FILE).write_text(
                json.dumps(info, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
            )
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


def _build_into(folder: Path, spec: BuildSpec, progress: Progress) -> dict[str, Any]:
    from llm_jax.data.token_records import write_records

    with tempfile.TemporaryDirectory(dir=folder, ignore_cleanup_errors=True) as scratch:
        left_out = spec.left_out()
        spool = Path(scratch, "corpus")
        corpus = read_corpus(spec.sources, spec.cleaner, spool, progress, left_out)
        splits = _split(corpus, spec)
        tokenizer, coverage = _tokenizer(spec, corpus, splits.train, progress)
        streams, counts = tokenise(corpus, tokenizer, splits, Path(scratch), progress)
        compared = compare_sources(corpus, spec.sources, tokenizer, progress)
        progress("writing records", 0, None)
        write_records(folder, streams, RECORD_TOKENS)
        corpus.close()
    tokenizer.save(folder)
    records = source_records(spec.sources, corpus, counts.pop("part_tokens"), folder)
    left_out.write(folder / LEFT_OUT_FILE)
    dropped = left_out.dropped()
    return {
        "format": DATASET_FORMAT,
        "sources": records,
        "documents": {"in": corpus.kept + sum(dropped.values()), "out": corpus.kept},
        "dropped": dropped,
        "lost": left_out.summary(corpus.used),
        "licences": dict(corpus.licences.most_common()),
        **counts,
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


def train_tokenizer(
    spec: VocabSpec, corpus: Corpus, order: np.ndarray, progress: Progress
) -> tuple[Tokenizer, float]:
    """A tokenizer trained on the first `spec.sample_bytes` of the documents in `order`, and the
    share of their characters that have a piece."""
    progress("training the tokenizer", 0, None)
    coverage = spec.character_coverage
    if coverage is None:
        coverage = coverage_within(take(corpus, order, spec.sample_bytes), spec.vocab_size)
    texts = take(corpus, order, spec.sample_bytes)
    return train(texts, spec.vocab_size, coverage, spec.kind), coverage


def take(corpus: Corpus, order: np.ndarray, max_bytes: int) -> Iterator[str]:
    """Texts in `order`, until they have `max_bytes` together."""
    taken = 0
    for i in order:
        if taken >= max_bytes:
            return
        text = corpus.text(i)
        taken += len(text.encode())
        yield text
