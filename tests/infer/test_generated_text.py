"""Whole characters only, and together the text that the tokenizer decodes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_jax.data.tokenizers import Tokenizer
from llm_jax.data.tokenizers.training import train
from llm_jax.infer.streamed_text import TextStream


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    # No character of the Japanese text below is in it, so each comes as three bytes.
    return train(["def main(argument): return argument + 1\n" * 20], vocab_size=300)


def test_a_character_appears_with_its_last_byte(tokenizer):
    ids = tokenizer.encode("a猫b")
    stream = TextStream(tokenizer)
    assert [stream.feed([i]) for i in ids] == ["a", "", "", "猫", "b"]
    assert stream.end() == ""


def test_a_cut_character_ends_as_a_replacement(tokenizer):
    stream = TextStream(tokenizer)
    ids = tokenizer.encode("猫")[:-1]
    assert stream.feed(ids) == ""
    assert stream.end() == "\ufffd"


def test_control_tokens_vanish_and_a_literal_byte_spelling_stays(tokenizer):
    stream = TextStream(tokenizer)
    assert (
        stream.feed([tokenizer.bos_id, *tokenizer.encode("<0x41>"), tokenizer.eos_id]) == "<0x41>"
    )


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=30))
def test_every_text_streams_back(tokenizer, text):
    stream = TextStream(tokenizer)
    pieces = [stream.feed([i]) for i in tokenizer.encode(text)] + [stream.end()]
    assert "".join(pieces) == text.replace("▁", " ")


@settings(max_examples=200, deadline=None)
@given(ids=st.lists(st.integers(0, 299), max_size=30))
def test_any_ids_stream_without_an_error(tokenizer, ids):
    stream = TextStream(tokenizer)
    together = stream.feed(ids) + stream.end()
    apart = TextStream(tokenizer)
    assert "".join(apart.feed([i]) for i in ids) + apart.end() == together
