"""Trains lossless tokenizers: SentencePiece BPE and Unigram with byte fallback, byte-level BPE.

Byte-pair encoding: Sennrich et al. 2016; Unigram: Kudo 2018; byte fallback and identity
normalisation follow Llama (Touvron et al. 2023); byte-level BPE: Radford et al. 2019. Unicode
normalisation is part of cleaning (`clean.py`): a tokenizer that normalises loses text.
"""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import sentencepiece

from llm_jax.config import TokenizerKind, UserError
from llm_jax.data.tokenizers.base import Tokenizer
from llm_jax.data.tokenizers.sentence_piece import SentencePieceTokenizer

RECIPE: dict[str, Any] = {
    "model_type": "bpe",
    "byte_fallback": True,
    "normalization_rule_name": "identity",
    "add_dummy_prefix": False,
    "remove_extra_whitespaces": False,
    "allow_whitespace_only_pieces": True,
    "split_digits": True,
    "unk_id": 0,
    "bos_id": 1,
    "eos_id": 2,
    "pad_id": 3,
}
BYTES_AND_CONTROL = 260
"""Pieces in every vocabulary: 256 bytes and 4 control tokens."""
# Japanese paragraphs are lines of thousands of characters without a space, and SentencePiece skips
# sentences above 4,192 bytes. A cut breaks at most one piece in about 300.
SENTENCE_CHARS = 1000

COVERAGE = 0.9995
"""Share of a text's characters that get a piece if there is room (SentencePiece's default)."""
LEAST_COVERAGE = 0.98
"""Least coverage that SentencePiece accepts."""


def coverage_within(texts: Iterable[str], vocab_size: int) -> float:
    """`COVERAGE`, or less if its characters would take over half of the pieces that are not bytes.

    Japanese has thousands of characters, which would leave no room for words in a small vocabulary.
    """
    counts = np.zeros(sys.maxunicode + 1, np.int64)
    for text in texts:
        found = np.bincount(np.frombuffer(text.replace("\n", "").encode("utf-32-le"), np.uint32))
        counts[: len(found)] += found
    most_frequent = np.sort(counts)[::-1][: max(vocab_size - BYTES_AND_CONTROL, 0) // 2]
    covered = float(most_frequent.sum() / max(counts.sum(), 1))
    return min(max(covered, LEAST_COVERAGE), COVERAGE)


def train(
    texts: Iterable[str],
    vocab_size: int,
    character_coverage: float = COVERAGE,
    kind: TokenizerKind = "bpe",
) -> Tokenizer:
    """Trains a tokenizer on `texts`, which are streamed; distinct words or lines are kept.

    The same texts and settings give the same bytes.

    Args:
      vocab_size: number of pieces, including the control tokens and 256 bytes.
      character_coverage: share of the text's characters that get a piece; others become bytes. A
        byte-level tokenizer has bytes in place of characters.
      kind: "bpe" and "unigram" are SentencePiece models by `RECIPE`, "byte-level" is a
        `tokenizer.json`.

    Raises:
      UserError: there is no text, the vocabulary is too small or too large for it, or the coverage
        is out of range.
    """
    if vocab_size <= BYTES_AND_CONTROL:
        raise UserError(
            f"--vocab-size is {vocab_size}: bytes and control tokens alone take "
            f"{BYTES_AND_CONTROL}; give more."
        )
    if not LEAST_COVERAGE <= character_coverage <= 1:
        raise UserError(
            f"--character-coverage is {character_coverage}: give a number from {LEAST_COVERAGE} "
            "to 1."
        )
    if kind == "byte-level":
        return _byte_level(sentences(texts), vocab_size)
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=sentences(texts),
            model_writer=model,
            vocab_size=vocab_size,
            character_coverage=character_coverage,
            minloglevel=2,
            **(RECIPE | {"model_type": kind}),
        )
    except RuntimeError as error:
        raise _training_error(error, vocab_size, character_coverage) from None
    return SentencePieceTokenizer(model.getvalue())


WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""What no piece of a byte-level tokenizer crosses: Qwen 2's pattern, with single digits."""
CONTROL_TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}


def _byte_level(sentences: Iterator[str], vocab_size: int) -> Tokenizer:
    from tokenizers import Regex, decoders, models, pre_tokenizers, trainers
    from tokenizers import Tokenizer as Library

    from llm_jax.data.tokenizers.json_file import JsonTokenizer

    library = Library(models.BPE())
    library.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    library.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(CONTROL_TOKENS.values()),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    library.train_from_iterator(sentences, trainer)
    pieces = library.get_vocab_size()
    if pieces <= BYTES_AND_CONTROL:
        raise UserError("There is no text to train a tokenizer on: the corpus is empty.")
    if pieces < vocab_size:
        raise UserError(
            f"--vocab-size is {vocab_size}, but this corpus yields only {pieces} pieces: lower it "
            f"to {pieces} or less, or give more text."
        )
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", **CONTROL_TOKENS}
    companions = {"tokenizer_config.json": json.dumps(settings, indent=2).encode() + b"\n"}
    return JsonTokenizer(library.to_str(pretty=True).encode(), companions)


def sentences(texts: Iterable[str]) -> Iterator[str]:
    """Non-empty lines, long ones in parts."""
    for text in texts:
        for line in text.split("\n"):
            for start in range(0, len(line), SENTENCE_CHARS):
                yield line[start : start + SENTENCE_CHARS]


def _training_error(error: RuntimeError, vocab_size: int, coverage: float) -> Exception:
    """SentencePiece's refusal as a sentence; any other error as it is."""
    message = str(error)
    if found := re.search(r"Vocabulary size too high .* value <= (\d+)", message):
        return UserError(
            f"--vocab-size is {vocab_size}, but this corpus yields only {found[1]} pieces: "
            f"lower it to {found[1]} or less, or give more text."
        )
    if found := re.search(r"smaller than required_chars. \d+ vs (\d+)", message):
        lower = ", or lower --character-coverage so that rare ones become bytes"
        return UserError(
            f"--vocab-size is {vocab_size}, but the characters of this corpus need {found[1]}: "
            f"raise it{lower if coverage > LEAST_COVERAGE else ''}."
        )
    if "!sentences_.empty()" in message:
        return UserError("There is no text to train a tokenizer on: the corpus is empty.")
    return error
