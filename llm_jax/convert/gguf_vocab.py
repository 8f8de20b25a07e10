"""A tokenizer as the metadata from which llama.cpp builds its own, with the same ids."""

from __future__ import annotations

import json
from typing import Any

from llm_jax.config import UserError
from llm_jax.config.jsonfile import parse_json
from llm_jax.convert.gguf_arch import Metadata
from llm_jax.data.tokenizers import Tokenizer
from llm_jax.data.tokenizers.files import SETTINGS
from llm_jax.data.tokenizers.json_file import JsonTokenizer
from llm_jax.data.tokenizers.sentence_piece import BPE, UNUSED, SentencePieceTokenizer
from llm_jax.data.tokenizers.tiktoken_file import LLAMA3_WORDS
from llm_jax.data.tokenizers.training import WORDS

NORMAL, CONTROL, USER_DEFINED = 1, 3, 4
"""Types of tokens, numbered as SentencePiece's."""
PATTERNS = {LLAMA3_WORDS: "llama-bpe", WORDS: "qwen2"}
"""Pattern that cuts a text into words → llama.cpp's name of it."""


def vocabulary(tokenizer: Tokenizer, rows: int) -> Metadata:
    """The keys below `tokenizer.` and their values.

    Args:
      rows: of the model's embedding; those that no token has are unused tokens.

    Raises:
      UserError: llama.cpp has no tokenizer that gives the same ids.
    """
    if isinstance(tokenizer, SentencePieceTokenizer):
        made = _sentence_piece(tokenizer)
    elif isinstance(tokenizer, JsonTokenizer) and tokenizer.is_byte_level_bpe:
        made = _byte_level(tokenizer)
    else:
        raise _no_such("it is neither a SentencePiece BPE nor a byte-level BPE")
    spare = range(len(made["ggml.tokens"]), rows)
    made["ggml.tokens"] += [f"[PAD{i}]" for i in spare]
    made["ggml.token_type"] += [UNUSED for _ in spare]
    if "ggml.scores" in made:
        made["ggml.scores"] += [-1e9 for _ in spare]
    made |= {"ggml.bos_token_id": tokenizer.bos_id, "ggml.eos_token_id": tokenizer.eos_id}
    if tokenizer.pad_id >= 0:
        made["ggml.padding_token_id"] = tokenizer.pad_id
    settings = _settings(tokenizer)
    if isinstance(template := settings.get("chat_template"), str):
        made["chat_template"] = template
    return made


def _sentence_piece(tokenizer: SentencePieceTokenizer) -> Metadata:
    proto = tokenizer.proto
    spec, normalizer = proto.trainer_spec, proto.normalizer_spec
    if spec.model_type != BPE or not spec.byte_fallback:
        raise _no_such("it is a Unigram model, or a BPE without byte fallback")
    if normalizer.remove_extra_whitespaces or normalizer.precompiled_charsmap:
        raise _no_such("it normalises text")
    return {
        "ggml.model": "llama",
        "ggml.pre": "default",
        "ggml.tokens": [one.piece for one in proto.pieces],
        "ggml.scores": [float(one.score) for one in proto.pieces],
        "ggml.token_type": [int(one.type) for one in proto.pieces],
        "ggml.unknown_token_id": int(spec.unk_id),
        "ggml.add_space_prefix": bool(normalizer.add_dummy_prefix),
        "ggml.add_bos_token": True,
        "ggml.add_eos_token": False,
    }


def _byte_level(tokenizer: JsonTokenizer) -> Metadata:
    raw = parse_json(tokenizer.content, "tokenizer.json")
    if raw.get("normalizer") not in (None, {"type": "NFC"}):
        raise _no_such("it normalises text")
    tokens = {int(i): token for token, i in raw["model"]["vocab"].items()}
    kinds = dict.fromkeys(tokens, NORMAL)
    for one in raw.get("added_tokens") or []:
        tokens[one["id"]] = one["content"]
        kinds[one["id"]] = CONTROL if one["special"] else USER_DEFINED
    ids = range(tokenizer.vocab_size)
    merges = [one if isinstance(one, str) else " ".join(one) for one in raw["model"]["merges"]]
    return {
        "ggml.model": "gpt2",
        "ggml.pre": _pattern(raw.get("pre_tokenizer")),
        "ggml.tokens": [tokens.get(i, f"[PAD{i}]") for i in ids],
        "ggml.token_type": [kinds.get(i, UNUSED) for i in ids],
        "ggml.merges": merges,
        "ggml.add_bos_token": tokenizer.adds_begin,
        "ggml.add_eos_token": False,
    }


def _pattern(pre: Any) -> str:
    """llama.cpp's name of a pre-tokenizer."""
    steps = (pre or {}).get("pretokenizers", [pre])
    *before, last = [one or {} for one in steps]
    if last.get("type") == "ByteLevel" and not last.get("add_prefix_space"):
        if not before and last.get("use_regex", True):
            return "gpt-2"
        if len(before) == 1 and not last.get("use_regex", True):
            name = PATTERNS.get(str((before[0].get("pattern") or {}).get("Regex")))
            if before[0].get("type") == "Split" and name:
                return name
    raise _no_such(f"its pre-tokenizer is none of {', '.join(['gpt-2', *PATTERNS.values()])}")


def _settings(tokenizer: Tokenizer) -> dict[str, Any]:
    """tokenizer_config.json that came with the tokenizer."""
    raw = tokenizer.companions.get(SETTINGS[0])
    found = json.loads(raw) if raw else {}
    return found if isinstance(found, dict) else {}


def _no_such(why: str) -> UserError:
    return UserError(
        f"llama.cpp has no tokenizer that gives the ids of this one ({why}): export with --to hf."
    )
