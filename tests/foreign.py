"""SentencePiece models as other people train them."""

from __future__ import annotations

import argparse
import inspect
import io

import sentencepiece

from llm_jax.convert.sample import SAMPLE
from llm_jax.data.tokenizers.sentence_piece import SentencePieceTokenizer
from llm_jax.data.tokenizers.training import RECIPE

LLAMA_2 = {"add_dummy_prefix": True}
FOREIGN: dict[str, dict[str, object]] = {
    "dummy-prefix": LLAMA_2,
    "nfkc": {"normalization_rule_name": "nmt_nfkc"},
    "spaces-removed": {"remove_extra_whitespaces": True},
    "unigram": {"model_type": "unigram"},
    "no-bytes": {"byte_fallback": False},
    "newlines-in-pieces": {"user_defined_symbols": ["\n\n", ".\n", "\n "]},
    "piece-that-ends-in-a-newline": {"user_defined_symbols": [";\n", "<sep>"]},
}
"""How they differ from the recipe."""


def foreign_tokenizer(**options: object) -> SentencePieceTokenizer:
    """A SentencePiece model of the recipe but for `options`, of 700 pieces at most."""
    model = io.BytesIO()
    lines = [*inspect.getsource(argparse).splitlines(), *SAMPLE.splitlines() * 20]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        vocab_size=700,
        hard_vocab_limit=False,
        minloglevel=2,
        **(RECIPE | {"character_coverage": 0.98} | options),
    )
    return SentencePieceTokenizer(model.getvalue())
