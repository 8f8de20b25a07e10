"""Tokens that a Hugging Face folder adds to its tokenizer's model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llm_jax.config import UserError, read_json
from llm_jax.data.tokenizers import Tokenizer
from llm_jax.data.tokenizers.sentinels import SENTINEL

NAMED = 5
"""Most tokens to name in the error."""


def require_known(folder: Path, tokenizer: Tokenizer) -> None:
    """Raises `UserError` unless `tokenizer` has every added token of `folder` at its id.

    The files are not trusted.
    """
    if unknown := unknown_tokens(folder, tokenizer):
        named = [f"{token!r} is {number}" for token, number in list(unknown.items())[:NAMED]]
        others = f" and {len(unknown) - NAMED} more" if len(unknown) > NAMED else ""
        raise UserError(
            f"{folder} adds tokens that the tokenizer does not have ({', '.join(named)}"
            f"{others}): text with them would get other ids; give a model that has them with "
            "--tokenizer."
        )


def unknown_tokens(folder: Path, tokenizer: Tokenizer) -> dict[str, int]:
    """Added tokens of `folder` that `tokenizer` does not have at their ids."""
    unknown = {
        token: number for token, number in _added(folder) if not _knows(tokenizer, token, number)
    }
    if _object(folder / "config.json").get("model_type") != "t5":
        return unknown
    first = tokenizer.vocab_size  # T5's sentinels come after the tokenizer's own ids
    last = first + len(unknown) - 1
    sentinels = {SENTINEL.format(i): last - i for i in range(len(unknown))}
    return {} if unknown == sentinels else unknown


def _knows(tokenizer: Tokenizer, token: str, number: int) -> bool:
    if not 0 <= number < tokenizer.vocab_size:
        return False
    (piece,) = tokenizer.pieces([number])
    return token in (piece, piece.replace("▁", " "))


def _added(folder: Path) -> Iterator[tuple[str, int]]:
    """(token, id) of each added token in each file."""
    for token, number in _object(folder / "added_tokens.json").items():
        yield _checked(folder / "added_tokens.json", token, number)
    path = folder / "tokenizer.json"
    entries = _object(path).get("added_tokens") or []
    for entry in entries if isinstance(entries, list) else [entries]:
        entry = entry if isinstance(entry, dict) else {}
        yield _checked(path, entry.get("content"), entry.get("id"))
    path = folder / "tokenizer_config.json"
    decoder = _object(path).get("added_tokens_decoder") or {}
    for number, entry in decoder.items() if isinstance(decoder, dict) else [("", decoder)]:
        content = entry.get("content") if isinstance(entry, dict) else entry
        yield _checked(
            path, content, int(number) if number.isdecimal() and len(number) < 10 else number
        )


def _checked(path: Path, token: Any, number: Any) -> tuple[str, int]:
    if not isinstance(token, str) or type(number) is not int:
        raise UserError(
            f"{path} adds the token {token!r} with id {number!r}: these must be a string and a "
            "whole number."
        )
    return token, number


def _object(path: Path) -> dict[str, Any]:
    """The JSON object in `path`; an empty one if there is no such file."""
    if not path.is_file():
        return {}
    found = read_json(path)
    if not isinstance(found, dict):
        raise UserError(f"{path} is not a JSON object.")
    return found
