"""A tokenizer trained on a sample of a corpus."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from llm_jax.config import TokenizerKind
from llm_jax.data.corpus import Corpus, Progress
from llm_jax.data.tokenizers import Tokenizer
from llm_jax.data.tokenizers.training import coverage_within, train


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
