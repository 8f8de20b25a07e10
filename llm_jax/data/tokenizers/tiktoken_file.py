"""A file of tiktoken as a `tokenizer.json`: lines of a token in base64 and its rank.

tiktoken merges, of all neighbours whose join is a token, those with the lowest rank. That is BPE
whose merges are ordered by the rank of what they make. The file does not say how a text is cut into
words, and which tokens are special. The settings beside it must; those of Qwen 1 and Llama 3 are
known.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llm_jax.config import UserError, read_json
from llm_jax.data.tokenizers.training import WORDS

LINE = re.compile(rb"([A-Za-z0-9+/]+={0,2}) (\d{1,9})")
NUMBER = re.compile(r"[0-9]{1,9}")
SETTINGS, PARAMS = "tokenizer_config.json", "params.json"
PATTERN, SPECIAL = "pat_str", "special_tokens"
"""Keys of the settings, named as tiktoken's arguments: how words are cut; token → id."""
LLAMA3_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
BEYOND = 1 << 62
LLAMA3_RANKS, LLAMA3_IDS = 128_000, 128_256
NAMED = ("chat_template", "model_max_length", "pad_token")
"""Settings that are kept."""


@dataclass(frozen=True)
class _Described:
    """What the file does not say."""

    pattern: str
    special: dict[str, int]
    end: str
    begin: str | None = None
    adds_begin: bool = False
    kept: dict[str, Any] = field(default_factory=dict)


def is_tiktoken(content: bytes) -> bool:
    """Whether a file's first line is a token and a rank; that of a SentencePiece model is not."""
    return LINE.fullmatch(content.partition(b"\n")[0].rstrip(b"\r")) is not None


def converted(path: Path, content: bytes) -> tuple[bytes, dict[str, bytes]]:
    """`tokenizer.json` with the same ids, and `tokenizer_config.json` beside it.

    Raises:
      UserError: a line is not a token and a rank, a byte has no rank, or the files beside it do not
        say how words are cut and which token ends a document.
    """
    from tokenizers import Regex, decoders, models, pre_tokenizers, processors
    from tokenizers import Tokenizer as Library

    ranks = _ranks(path, content)
    described = _described(path, len(ranks))
    ids = sorted(described.special.values())
    if ids != list(range(len(ranks), len(ranks) + len(ids))):
        raise UserError(
            f"{path} has ranks 0 to {len(ranks) - 1}, so its special tokens must have the ids from "
            f"{len(ranks)}, without a gap: got {ids[:3]}."
        )
    library = Library(models.BPE(fuse_unk=False, ignore_merges=True))
    try:
        words = pre_tokenizers.Split(Regex(described.pattern), "isolated")
    except Exception as error:  # the library raises no narrower one
        raise UserError(f"{path}: {PATTERN} is not a regular expression ({error}).") from None
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    library.pre_tokenizer = pre_tokenizers.Sequence([words, bytes_])
    library.decoder = decoders.ByteLevel()
    if described.begin and described.adds_begin:
        begin = described.begin
        library.post_processor = processors.TemplateProcessing(
            single=f"{begin} $A",
            pair=f"{begin} $A {begin} $B",
            special_tokens=[(begin, described.special[begin])],
        )
    raw = json.loads(library.to_str())
    raw["model"]["vocab"] = {_spelled(token): rank for token, rank in ranks.items()}
    raw["model"]["merges"] = [[_spelled(a), _spelled(b)] for a, b in _merges(ranks)]
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    raw["added_tokens"] = [
        {"id": number, "content": name, **plain, "special": True}
        for name, number in sorted(described.special.items(), key=lambda one: one[1])
    ]
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": described.end}
    settings |= {"bos_token": described.begin} if described.begin else {}
    return _json(raw), {SETTINGS: _json(settings | described.kept)}


def _json(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


def _ranks(path: Path, content: bytes) -> dict[bytes, int]:
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(content.splitlines(), 1):
        if not line.strip():
            continue
        try:
            found = LINE.fullmatch(line)
            token = base64.b64decode(found[1], validate=True) if found else b""
        except binascii.Error:
            token = b""
        if not found or not token or token in ranks:
            why = "is there twice" if token in ranks else "is not a token in base64 and a rank"
            raise UserError(f"{path}: line {number} {why}: download the file again.")
        ranks[token] = int(found[2])
    if lacking := [byte for byte in range(256) if bytes([byte]) not in ranks]:
        raise UserError(f"{path} has no rank for byte {lacking[0]}: it cannot encode every text.")
    if sorted(ranks.values()) != list(range(len(ranks))):
        raise UserError(f"{path} has not each rank from 0 once: download it again.")
    return ranks


def _merges(ranks: dict[bytes, int]) -> list[tuple[bytes, bytes]]:
    """The two tokens that each token is merged from, the lowest rank first.

    There is one such pair: a merge across a token's ends would prevent it, so inside of a word the
    same merges make it as alone. A token that no merges make is found as a whole word only.
    """
    made = []
    for token in sorted(ranks, key=ranks.__getitem__):
        parts = [token[i : i + 1] for i in range(len(token))]
        while len(parts) > 2:
            pairs = [ranks.get(parts[i] + parts[i + 1], BEYOND) for i in range(len(parts) - 1)]
            lowest = min(pairs)
            if lowest >= ranks[token]:
                break
            at = pairs.index(lowest)
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        if len(parts) == 2:
            made.append((parts[0], parts[1]))
    return made


def _spelled(token: bytes) -> str:
    from llm_jax.data.tokenizers.json_file import BYTE_CHARACTERS

    return "".join(BYTE_CHARACTERS[byte] for byte in token)


def _described(path: Path, count: int) -> _Described:
    """What the files beside `path` say, or what is known of a model that they name."""
    settings = _object(path.parent / SETTINGS)
    kept = {key: settings[key] for key in NAMED if isinstance(settings.get(key), str | int)}
    if settings.get("tokenizer_class") == "QWenTokenizer" and PATTERN not in settings:
        names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
        names += [f"<|extra_{i}|>" for i in range(205)]
        return _Described(WORDS, _numbered(names, count), "<|endoftext|>", kept=kept)
    ids = _object(path.parent / PARAMS).get("vocab_size")
    if (count, ids) == (LLAMA3_RANKS, LLAMA3_IDS) and PATTERN not in settings:
        reserved = [f"<|reserved_special_token_{i}|>" for i in range(251)]
        names = ["<|begin_of_text|>", "<|end_of_text|>", *reserved[:4]]
        names += ["<|start_header_id|>", "<|end_header_id|>", reserved[4], "<|eot_id|>"]
        special = _numbered([*names, *reserved[5:]], count)
        return _Described(LLAMA3_WORDS, special, names[1], names[0], True, kept)
    return _said(path, settings, kept)


def _said(path: Path, settings: dict[str, Any], kept: dict[str, Any]) -> _Described:
    place = path.parent / SETTINGS
    pattern, special = settings.get(PATTERN), _special(settings)
    if not isinstance(pattern, str):
        raise UserError(
            f"{path} is a tiktoken file, which does not say how a text is cut into words: give the "
            f"pattern as {PATTERN} in {place}, and its special tokens as {SPECIAL} (token → id)."
        )
    roles = {role: _content(settings.get(role)) for role in ("bos_token", "eos_token")}
    for role, name in roles.items():
        if name is None and role == "eos_token":
            raise UserError(f"{place} names no eos_token, which ends a document: add it.")
        if name is not None and name not in special:
            raise UserError(
                f"{place} names {name!r} as {role}, which is not among its {SPECIAL}: add its id."
            )
    begin, end = roles.values()
    assert end is not None
    return _Described(pattern, special, end, begin, settings.get("add_bos_token") is True, kept)


def _special(settings: dict[str, Any]) -> dict[str, int]:
    """Special token → id: `special_tokens`, or transformers' `added_tokens_decoder`."""
    given = settings.get(SPECIAL)
    if isinstance(given, dict):
        pairs = list(given.items())
    else:
        decoder = settings.get("added_tokens_decoder")
        entries = decoder.items() if isinstance(decoder, dict) else []
        pairs = [(_content(one), int(i)) for i, one in entries if NUMBER.fullmatch(str(i))]
    for name, number in pairs:
        if not isinstance(name, str) or type(number) is not int or number < 0:
            raise UserError(
                f"{SETTINGS} has the special token {name!r} with id {number!r}: these must be a "
                "string and a whole number."
            )
    return dict(pairs)


def _content(token: Any) -> str | None:
    found = token.get("content") if isinstance(token, dict) else token
    return found if isinstance(found, str) else None


def _numbered(names: list[str], first: int) -> dict[str, int]:
    return {name: first + i for i, name in enumerate(names)}


def _object(path: Path) -> dict[str, Any]:
    raw = read_json(path) if path.is_file() else {}
    return raw if isinstance(raw, dict) else {}
