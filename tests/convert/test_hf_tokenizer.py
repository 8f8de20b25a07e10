"""AutoTokenizer gives SentencePiece's ids, beside every model type that is exported."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
from foreign import FOREIGN, LLAMA_2, foreign_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_jax.config import UserError
from llm_jax.convert import hf_tokenizer
from llm_jax.convert.families import FAMILIES
from llm_jax.convert.sample import SAMPLE
from llm_jax.data.tokenizers import Tokenizer

ALPHABET = "ab \t\n.,(){}0123456789あいう漢字ァ　▁é😀\x00\u200b"
TEXT = st.one_of(st.text(max_size=40), st.text(ALPHABET, max_size=60))
EXPORTED = [family.model_type for family in FAMILIES if family.model_type != "qwen2"]


KINDS = ("recipe", "dummy-prefix", "unigram", "unigram-nfkc", "nfkc", "spaces-removed", "no-bytes")


@pytest.fixture(scope="module")
def tokenizers(tokenizer) -> dict[str, Tokenizer]:
    nfkc = LLAMA_2 | FOREIGN["nfkc"] | FOREIGN["spaces-removed"]
    options = FOREIGN | {"unigram-nfkc": FOREIGN["unigram"] | nfkc}
    return {"recipe": tokenizer} | {k: foreign_tokenizer(**options[k]) for k in KINDS[1:]}


@pytest.mark.parametrize(
    ("model_type", "kind"),
    [
        *itertools.product(EXPORTED, ("recipe",)),
        *itertools.product(("llama", "qwen3", "gemma2", "gpt2"), KINDS[1:2]),
        *itertools.product(("llama", "gpt2"), KINDS[2:]),
    ],
)
def test_ids_and_text_agree_on_english_japanese_and_code(model_type, kind, tokenizers, tmp_path):
    transformers = pytest.importorskip("transformers")
    tokenizer = tokenizers[kind]
    hf_tokenizer.write(tmp_path, tokenizer, 4096)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    source = Path(hf_tokenizer.__file__).read_text(encoding="utf-8")
    lines = [SAMPLE, source, *SAMPLE.splitlines(), *source.splitlines(), "", " ", "\n", "  two"]
    lines += ["<s> a </s><unk>", "<0x41>"]
    for line in lines:
        ids = tokenizer.encode(line)
        assert theirs(line)["input_ids"] == [tokenizer.bos_id, *ids]
        if kind in ("recipe", "dummy-prefix"):
            assert theirs.decode(ids) == line.replace("▁", " ")
    assert theirs.eos_token_id == tokenizer.eos_id
    assert theirs.pad_token_id == tokenizer.pad_id


@pytest.mark.parametrize("kind", KINDS)
def test_the_tokenizers_library_agrees_on_any_text(kind, tokenizers):
    tokenizer = tokenizers[kind]
    fast = hf_tokenizer.fast_tokenizer(tokenizer)
    fast.encode_special_tokens = True
    lossless = kind in ("recipe", "dummy-prefix", "unigram")

    @settings(max_examples=500, deadline=None, derandomize=True)
    # With a mark that combines with a character that is normalised, the libraries differ.
    @given(text=st.text(ALPHABET, max_size=60) if "nfkc" in kind else TEXT)
    def check(text):
        ids = tokenizer.encode(text)
        assert fast.encode(text).ids == [tokenizer.bos_id, *ids]
        assert not lossless or fast.decode(ids) == tokenizer.decode(ids)

    check()


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"model_type": "char"}, "is neither a BPE nor a Unigram model"),
        ({"treat_whitespace_as_suffix": True}, "spaces at the end of words"),
        # The tokenizers library would put a prefix behind the piece too.
        (LLAMA_2 | {"user_defined_symbols": ["<sep>"]}, "as in 'one<sep>two"),
        # And it would merge pieces of spaces further.
        ({"user_defined_symbols": ["▁▁", "▁▁▁"]}, "pieces .*, as in"),
    ],
)
def test_a_tokenizer_that_hugging_face_would_read_wrong_is_refused(options, problem, tmp_path):
    with pytest.raises(UserError, match=problem):
        hf_tokenizer.write(tmp_path, foreign_tokenizer(**options), 128)
    assert list(tmp_path.iterdir()) == []


def test_pieces_of_its_own_go_out_where_they_agree(tmp_path):
    tokenizer = foreign_tokenizer(**FOREIGN["piece-that-ends-in-a-newline"])
    hf_tokenizer.write(tmp_path, tokenizer, 128)
    fast = hf_tokenizer.fast_tokenizer(tokenizer)
    text = "a;\nb <sep>c<sep>"
    assert fast.encode(text).ids == [tokenizer.bos_id, *tokenizer.encode(text)]
