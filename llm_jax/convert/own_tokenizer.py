"""The tokenizer of a Hugging Face folder, and whether one belongs to its model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llm_jax.config import Architecture, SourceToTarget, UserError
from llm_jax.convert.added_tokens import require_known, unknown_tokens
from llm_jax.convert.sample import SAMPLE
from llm_jax.data.tokenizers import Tokenizer
from llm_jax.data.tokenizers.files import JSON_FILE, has_tokenizer, load_json
from llm_jax.data.tokenizers.sentence_piece import MODEL_FILE
from llm_jax.data.tokenizers.sentinels import start_id


def tokenizer_of(folder: Path, given: str | Path | None = None) -> Tokenizer:
    """`given`, or the folder's own: its SentencePiece model if that makes what its tokenizer.json
    makes, otherwise the tokenizer.json, which is what transformers reads.

    Raises:
      UserError: there is none, it cannot be used, or `given` makes other ids of a sample text than
        the folder's own.
    """
    has_json = (folder / JSON_FILE).is_file()
    if given is not None:
        tokenizer = Tokenizer.load(given)
        require_known(folder, tokenizer)
        if has_json and (line := difference(tokenizer, load_json(folder))):
            raise UserError(
                f"--tokenizer {str(given)!r} does not belong to the model in {folder}: for "
                f"{line!r} it gives other ids than the folder's {JSON_FILE}. Leave the flag out."
            )
        return tokenizer
    if (folder / MODEL_FILE).is_file():
        tokenizer = Tokenizer.load(folder)
        if not has_json:
            require_known(folder, tokenizer)
            return tokenizer
        theirs = load_json(folder)
        same = not unknown_tokens(folder, tokenizer) and not difference(tokenizer, theirs)
        return tokenizer if same else theirs
    if has_json:
        return load_json(folder)
    if has_tokenizer(folder):
        tokenizer = Tokenizer.load(folder)
        require_known(folder, tokenizer)
        return tokenizer
    raise UserError(
        f"{folder} has no tokenizer ({MODEL_FILE} or {JSON_FILE}): put that of its model there, or "
        "give it to `llm-jax import --tokenizer`."
    )


def difference(one: Tokenizer, other: Tokenizer) -> str | None:
    """The first line of a sample text of which the tokenizers make other ids; None if none."""
    lines = [*SAMPLE.splitlines(), SAMPLE]
    return next((line for line in lines if one.encode(line) != other.encode(line)), None)


def require_belongs(raw: dict[str, Any], vocabulary: int, tokenizer: Tokenizer) -> None:
    """Raises `UserError` unless the tokenizer fits what config.json says.

    Args:
      raw: config.json, which is not trusted.
      vocabulary: rows of the model's embedding. A model may have more of them than tokens.
    """
    if tokenizer.vocab_size > vocabulary:
        raise UserError(
            f"The tokenizer has {tokenizer.vocab_size} tokens, more than the {vocabulary} that "
            "config.json gives as vocab_size: they do not belong together."
        )
    named = {"bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.eos_id}
    if tokenizer.marks.shared:
        named.pop("bos_token_id")  # the tokenizer has none of its own
    for key, ours in named.items():
        theirs = raw.get(key)
        allowed = theirs if isinstance(theirs, list) else [theirs]
        if theirs is not None and ours not in allowed:
            raise UserError(
                f"config.json says {key} {theirs}, but the tokenizer has {ours}: correct the one "
                "that is wrong, or give the model's own tokenizer."
            )


def require_starts(raw: dict[str, Any], model: Architecture, tokenizer: Tokenizer) -> None:
    """Raises `UserError` unless targets begin with the token that config.json says."""
    theirs = raw.get("decoder_start_token_id")
    if theirs is None or not isinstance(model, SourceToTarget):
        return
    if theirs != (ours := start_id(tokenizer, model)):
        raise UserError(
            f"config.json says decoder_start_token_id {theirs}, but by the tokenizer a target "
            f"begins with {ours}: correct the one that is wrong, or give the model's own tokenizer."
        )
