"""Where tokenizers lie: single files, datasets, runs and Hugging Face folders."""

from __future__ import annotations

from pathlib import Path

from llm_jax.config import UserError, read_bytes
from llm_jax.data.tokenizers.base import COMPANIONS, Tokenizer
from llm_jax.data.tokenizers.sentence_piece import MODEL_FILE, SentencePieceTokenizer

JSON_FILE = "tokenizer.json"
SETTINGS = ("tokenizer_config.json", "special_tokens_map.json")
"""Files of transformers that name the special tokens."""
CAME_WITH = (
    MODEL_FILE,
    JSON_FILE,
    *SETTINGS,
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "spiece.model",
)
"""Files of a Hugging Face folder that belong to its tokenizer."""


def has_tokenizer(folder: Path) -> bool:
    return any((folder / name).is_file() for name in _PLACES)


def load_tokenizer(path: str | Path) -> Tokenizer:
    """The tokenizer in a file or folder; see `Tokenizer.load`."""
    path = Path(path)
    if path.is_dir():
        return _in_folder(path)
    if not path.is_file():
        raise UserError(f"There is no tokenizer file {str(path)!r}: check the path.")
    if path.suffix == ".json":
        return _json(path.parent, path)
    return SentencePieceTokenizer(read_bytes(path))


_PLACES = (MODEL_FILE, f"{COMPANIONS}/{JSON_FILE}", JSON_FILE)


def _in_folder(folder: Path) -> Tokenizer:
    place = next((name for name in _PLACES if (folder / name).is_file()), None)
    if place is None:
        raise UserError(
            f"There is no tokenizer in {str(folder)!r}: it needs {MODEL_FILE} (SentencePiece) or "
            f"{JSON_FILE}."
        )
    if place == MODEL_FILE:
        kept = folder / COMPANIONS
        beside = _companions(kept if kept.is_dir() else folder)
        return SentencePieceTokenizer(read_bytes(folder / MODEL_FILE), beside)
    return _json((folder / place).parent, folder / place)


def load_json(folder: Path) -> Tokenizer:
    """The tokenizer.json of a folder, even if a SentencePiece model lies beside it."""
    return _json(folder, folder / JSON_FILE)


def _json(folder: Path, path: Path) -> Tokenizer:
    from llm_jax.data.tokenizers.json_file import JsonTokenizer

    companions = _companions(folder)
    companions.pop(path.name, None)
    return JsonTokenizer(read_bytes(path), companions)


def _companions(folder: Path) -> dict[str, bytes]:
    found = {name: folder / name for name in CAME_WITH}
    return {name: read_bytes(path) for name, path in found.items() if path.is_file()}
