"""AutoTokenizer gives SentencePiece's ids, beside every model type that is exported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_jax.config import UserError
from llm_jax.convert import hf_tokenizer
from llm_jax.convert.families import FAMILIES
from llm_jax.convert.parity import SAMPLE
from llm_jax.data.tokenizer import Tokenizer

ALPHABET = "ab \t\n.,(){}0123456789あいう漢字ァ　▁é😀\x00\u200b"
TEXT = st.one_of(st.text(max_size=40), st.text(ALPHABET, max_size=60))
EXPORTED = [family.model_type for family in FAMILIES if family.model_type != "qwen2"]


@pytest.fixture(scope="module", params=EXPORTED)
def theirs(request, tokenizer, tmp_path_factory):
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp(request.param)
    hf_tokenizer.write(folder, tokenizer, 4096)
    (folder / "config.json").write_text(json.dumps({"model_type": request.param}))
    return transformers.AutoTokenizer.from_pretrained(folder)


def test_ids_and_text_agree_on_english_japanese_and_code(tokenizer, theirs):
    source = Path(hf_tokenizer.__file__).read_text(encoding="utf-8")
    for line in [SAMPLE, source, *SAMPLE.splitlines(), *source.splitlines()]:
        ids = tokenizer.encode(line)
        assert theirs(line)["input_ids"] == [tokenizer.bos_id, *ids]
        assert theirs.decode(ids) == line.replace("▁", " ")
    assert theirs.eos_token_id == tokenizer.eos_id
    assert theirs.pad_token_id == tokenizer.pad_id


@pytest.fixture(scope="module")
def fast(tokenizer):
    return hf_tokenizer.fast_tokenizer(tokenizer)


@settings(max_examples=500, deadline=None)
@given(text=TEXT)
def test_the_tokenizers_library_agrees_on_any_text(tokenizer, fast, text):
    assert fast.encode(text).ids == [tokenizer.bos_id, *tokenizer.encode(text)]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"model_type": "unigram", "byte_fallback": True}, "is no BPE model"),
        ({"model_type": "bpe"}, "has no byte fallback"),
        (
            {"model_type": "bpe", "byte_fallback": True, "normalization_rule_name": "nmt_nfkc"},
            "normalises text",
        ),
    ],
)
def test_a_tokenizer_that_hugging_face_would_read_wrong_is_refused(options, problem, tmp_path):
    prefix = tmp_path / "other"
    settings_ = {"normalization_rule_name": "identity", "remove_extra_whitespaces": False}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SAMPLE.splitlines() * 20),
        model_prefix=str(prefix),
        vocab_size=430,
        minloglevel=2,
        hard_vocab_limit=False,
        **(settings_ | options),
    )
    with pytest.raises(UserError, match=problem):
        hf_tokenizer.write(tmp_path, Tokenizer.load(prefix.with_suffix(".model")), 128)
