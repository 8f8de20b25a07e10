"""The sentinels of an encoder-decoder in the files that `AutoTokenizer` loads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import processors

from llm_jax.config import SourceToTarget, read_json
from llm_jax.convert.hf_tokenizer import fast_tokenizer
from llm_jax.data.tokenizers import Tokenizer
from llm_jax.data.tokenizers.files import JSON_FILE, SETTINGS
from llm_jax.data.tokenizers.sentence_piece import SentencePieceTokenizer
from llm_jax.data.tokenizers.sentinels import SENTINEL, own_sentinels, sentinel_ids


def add(folder: Path, tokenizer: Tokenizer, model: SourceToTarget) -> list[str]:
    """Adds the sentinels to `tokenizer.json` and its settings in `folder`, if it lacks them.

    Special tokens after the tokenizer's own ids, named as T5 names them. The settings then name the
    class of transformers that takes `tokenizer.json` as it is.

    Returns:
      The files that were changed.
    """
    if len(own_sentinels(tokenizer)):
        return []
    path, settings_path = folder / JSON_FILE, folder / SETTINGS[0]
    library = read_json(path) if path.is_file() else _as_t5_reads(tokenizer)
    ids = sentinel_ids(tokenizer, model)
    names = [SENTINEL.format(i) for i in range(len(ids))]
    library["added_tokens"] += sorted(
        (_token(int(i), name) for i, name in zip(ids, names, strict=True)), key=lambda t: t["id"]
    )
    settings = read_json(settings_path) if settings_path.is_file() else {}
    if not path.is_file():
        settings["split_special_tokens"] = True  # in a text they are text, as in SentencePiece
    settings |= {"tokenizer_class": "PreTrainedTokenizerFast", "extra_special_tokens": names}
    _write(path, library)
    _write(settings_path, settings)
    return [path.name, settings_path.name]


def _as_t5_reads(tokenizer: Tokenizer) -> dict[str, Any]:
    """`tokenizer.json` of a SentencePiece model that came without: a text ends with `</s>`."""
    assert isinstance(tokenizer, SentencePieceTokenizer)
    library = fast_tokenizer(tokenizer)
    end = tokenizer.proto.pieces[tokenizer.eos_id].piece
    library.post_processor = processors.TemplateProcessing(
        single=f"$A {end}",
        pair=f"$A {end} $B {end}",
        special_tokens=[(end, tokenizer.eos_id)],
    )
    made: dict[str, Any] = json.loads(library.to_str())
    return made


def _token(number: int, name: str) -> dict[str, Any]:
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": number, "content": name, **plain, "special": True}


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
