"""The tokenizer is lossless, deterministic, counts bytes, and refuses in one sentence."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from data_samples import JAPANESE, stdlib_texts
from foreign import FOREIGN, foreign_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_jax.config import UserError
from llm_jax.data.tokenizers import Tokenizer
from llm_jax.data.tokenizers import sentence_piece as tokenizer_module
from llm_jax.data.tokenizers.sentence_piece import PART_CHARS, SentencePieceTokenizer
from llm_jax.data.tokenizers.training import coverage_within, train

# U+2581 is SentencePiece's own sign for the space; surrogates are no text.
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="▁"))
MIXED = st.lists(
    st.one_of(
        TEXT,
        st.sampled_from(
            [
                "  ",
                "\t",
                "\n",
                "\r\n",
                " def f(x):\n    return x\n",
                "日本語。",
                "😀👩‍👩‍👧",
                "123",
                "<s>",
                "</s>",
            ]
        ),
    )
).map("".join)


@settings(deadline=None, max_examples=300)
@given(text=MIXED)
def test_round_trip_is_exact(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.token_bytes[ids].sum() == len(text.encode())


def test_real_text_round_trips_and_compresses(tokenizer: Tokenizer) -> None:
    for text in [JAPANESE, *(source for _, source in stdlib_texts())]:
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert len(text.encode()) / len(ids) > 2


def test_space_sign_reads_back_as_a_space(tokenizer: Tokenizer) -> None:
    assert tokenizer.decode(tokenizer.encode("a▁b")) == "a b"


def test_ids_of_the_recipe(tokenizer: Tokenizer) -> None:
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (1, 2, 3)
    assert tokenizer.vocab_size == 1200
    assert tokenizer.pieces([0, 1, 2, 3]) == ["<unk>", "<s>", "</s>", "<pad>"]
    assert tokenizer.pieces(tokenizer.encode("2026")) == ["2", "0", "2", "6"]
    assert tokenizer.encode("\n") == [4 + 0x0A]


def test_control_tokens_written_in_text_stay_text(tokenizer: Tokenizer) -> None:
    assert not {0, 1, 2, 3} & set(tokenizer.encode("<s> </s> <unk> <pad>"))


def test_token_bytes_of_each_kind(tokenizer: Tokenizer) -> None:
    sizes = tokenizer.token_bytes
    assert sizes.dtype == np.int32
    assert sizes.shape == (1200,)
    assert sizes[:4].tolist() == [0, 0, 0, 0]
    assert sizes[4:260].tolist() == [1] * 256
    (space,) = tokenizer.encode(" ")
    (kana,) = tokenizer.encode("の")
    assert (sizes[space], sizes[kana]) == (1, 3)


def test_incomplete_utf8_decodes_to_the_replacement_character(tokenizer: Tokenizer) -> None:
    emoji = tokenizer.encode("😀")
    assert len(emoji) == 4
    assert tokenizer.decode(emoji) == "😀"
    assert set(tokenizer.decode(emoji[:2])) == {"\N{REPLACEMENT CHARACTER}"}


def test_documents_are_framed_and_parts_change_nothing(tokenizer: Tokenizer) -> None:
    long = "\n".join(text for _, text in stdlib_texts())
    assert len(long) > 5 * PART_CHARS
    unbroken = "木" * (2 * PART_CHARS)
    texts = [long, "x", unbroken]
    for text, ids in zip(texts, tokenizer.encode_documents(texts, threads=2), strict=True):
        assert ids.dtype == np.int32
        assert ids.tolist() == [1, *tokenizer.encode(text), 2]


@pytest.mark.parametrize("kind", FOREIGN)
def test_long_documents_have_the_ids_of_short_ones_in_every_kind_of_model(kind, monkeypatch):
    foreign = foreign_tokenizer(**FOREIGN[kind])
    long = "\n".join(text for _, text in stdlib_texts())

    def framed(text):
        return [foreign.bos_id, *foreign.encode(text), foreign.eos_id]

    assert foreign.encode_documents([long])[0].tolist() == framed(long)
    monkeypatch.setattr(tokenizer_module, "PART_CHARS", 5)

    @settings(deadline=None, max_examples=200)
    @given(text=st.one_of(MIXED, st.text("a1 .;\n\t日木ｶﾞ<>sep", max_size=60)))
    def check(text: str) -> None:
        assert foreign.encode_documents([text], threads=1)[0].tolist() == framed(text)

    check()


def test_where_nothing_spans_a_newline_long_documents_go_in_parts(monkeypatch):
    monkeypatch.setattr(tokenizer_module, "PART_CHARS", 5)
    parts = tokenizer_module._parts
    cut = []
    monkeypatch.setattr(tokenizer_module, "_parts", lambda text: cut.append(text) or parts(text))
    foreign_tokenizer().encode_documents(["one line\n" * 3])
    foreign_tokenizer(**FOREIGN["piece-that-ends-in-a-newline"]).encode_documents(["x;\n" * 3])
    assert cut == ["one line\n" * 3, "x;\n" * 3]


def test_same_texts_give_the_same_bytes(tokenizer: Tokenizer) -> None:
    again = train([*(text for _, text in stdlib_texts()), JAPANESE * 20], vocab_size=1200)
    assert again.sha256 == tokenizer.sha256
    assert SentencePieceTokenizer(again.content).encode(JAPANESE) == tokenizer.encode(JAPANESE)


@pytest.mark.parametrize(
    ("texts", "vocab_size", "words"),
    [
        (["a few words only"], 32_000, "yields only"),
        ([JAPANESE], 300, "raise it, or lower --character-coverage"),
        ([], 300, "the corpus is empty"),
        (["text"], 100, "take 260"),
    ],
)
def test_training_refuses_in_one_sentence(texts: list[str], vocab_size: int, words: str) -> None:
    with pytest.raises(UserError, match=words):
        train(texts, vocab_size)


@pytest.mark.parametrize("coverage", [0.5, 1.5, float("nan")])
def test_a_coverage_that_sentencepiece_refuses(coverage: float) -> None:
    with pytest.raises(UserError, match=r"^--character-coverage is .*: give a number from 0.98 to"):
        train(["text"], 300, character_coverage=coverage)


def test_the_least_coverage_is_not_to_be_lowered() -> None:
    with pytest.raises(UserError, match=r"characters of this corpus need \d+: raise it\.$"):
        train([JAPANESE], 300, character_coverage=0.98)


def test_characters_leave_half_of_the_vocabulary_to_words() -> None:
    """1,000 characters that come 99 times each, and 1,000 that come once: 1 in 100 of the text."""
    frequent, rare = ("".join(chr(first + i) for i in range(1000)) for first in (0x4E00, 0x6E00))
    texts = [frequent * 99 + "\n", rare]
    assert coverage_within(texts, 260 + 2 * 1000) == 0.99
    assert coverage_within(texts, 260 + 2 * 2000) == 0.9995
    assert coverage_within(texts, 300) == 0.98
    assert coverage_within(["plain text"], 4096) == 0.9995


def test_not_a_model(tokenizer: Tokenizer, tmp_path) -> None:
    with pytest.raises(UserError, match="no tokenizer file"):
        Tokenizer.load(tmp_path / "absent.model")
    (tmp_path / "bad.model").write_bytes(b"not a model")
    with pytest.raises(UserError, match="not a SentencePiece model"):
        Tokenizer.load(tmp_path / "bad.model")
    with pytest.raises(UserError, match=r"Token id 1200 .* vocabulary of 1200"):
        tokenizer.decode([1200])


def test_import_needs_neither_tfds_nor_jax() -> None:
    code = (
        "import sys, llm_jax.data.tokenizers, llm_jax.data.dataset, llm_jax.data.build\n"
        "print([m for m in ('tensorflow_datasets', 'jax', 'tensorflow') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
