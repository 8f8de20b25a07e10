"""Where tokenizers lie: single files, datasets, runs and Hugging Face folders."""

from __future__ import annotations

from pathlib import Path

from llm_jax.config import UserError, read_bytes
from llm_jax.data.tokenizers.base import COMPANIONS, Tokenizer
from llm_jax.data.tokenizers.sentence_piece import MODEL_FILE, SentencePieceTokenizer
from llm_jax.data.tokenizers.tiktoken_file import converted, is_tiktoken

JSON_FILE = "tokenizer.json"
TIKTOKEN = ".tiktoken"
LONGEST_LINE = 1 << 16
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
    return _place_in(folder) is not None


def load_tokenizer(path: str | Path) -> Tokenizer:
    """The tokenizer in a file or folder; see `Tokenizer.load`."""
    path = Path(path)
    if path.is_dir():
        return _in_folder(path)
    if not path.is_file():
        raise UserError(f"There is no tokenizer file {str(path)!r}: check the path.")
    if path.suffix == ".json":
        return _json(path.parent, path)
    content = read_bytes(path)
    if path.suffix == TIKTOKEN or is_tiktoken(content):
        return _tiktoken(path, content)
    return SentencePieceTokenizer(content)


T5_FILE = "spiece.model"
_PLACES = (MODEL_FILE, f"{COMPANIONS}/{JSON_FILE}", JSON_FILE, T5_FILE)


def _in_folder(folder: Path) -> Tokenizer:
    place = _place_in(folder)
    if place is None:
        raise UserError(
            f"There is no tokenizer in {str(folder)!r}: it needs {MODEL_FILE} (SentencePiece or "
            f"tiktoken), {JSON_FILE}, or one file NAME{TIKTOKEN}."
        )
    if place in (MODEL_FILE, T5_FILE) or place.endswith(TIKTOKEN):
        content = read_bytes(folder / place)
        if place.endswith(TIKTOKEN) or is_tiktoken(content):
            return _tiktoken(folder / place, content)
        kept = folder / COMPANIONS
        beside = _companions(kept if kept.is_dir() else folder)
        return SentencePieceTokenizer(content, beside)
    return _json((folder / place).parent, folder / place)


def _place_in(folder: Path) -> str | None:
    """The name of the file that holds the tokenizer; None if there is none.

    tokenizer.json comes before a tiktoken file, which says less.
    """
    found = [name for name in _PLACES if (folder / name).is_file()]
    if found[:1] == [MODEL_FILE] and JSON_FILE in found and _holds_tiktoken(folder / MODEL_FILE):
        return JSON_FILE
    named = sorted(path.name for path in folder.glob(f"*{TIKTOKEN}") if path.is_file())
    return next(iter(found), named[0] if len(named) == 1 else None)


def _holds_tiktoken(path: Path) -> bool:
    with path.open("rb") as file:
        return is_tiktoken(file.readline(LONGEST_LINE))


def _tiktoken(path: Path, content: bytes) -> Tokenizer:
    from llm_jax.data.tokenizers.json_file import JsonTokenizer

    return JsonTokenizer(*converted(path, content))


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
