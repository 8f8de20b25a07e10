"""A small tokenizer of real text."""

from __future__ import annotations

from pathlib import Path

import pytest

import llm_jax
from llm_jax.convert.sample import SAMPLE
from llm_jax.data.tokenizers import Tokenizer
from llm_jax.data.tokenizers.training import train


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """Trained on this package's own source and on the sample of English, Japanese and code."""
    package = Path(llm_jax.__file__).parent
    sources = [path.read_text(encoding="utf-8") for path in sorted(package.rglob("*.py"))]
    return train([SAMPLE * 50, *sources], vocab_size=600, character_coverage=0.98)
