"""Exports the table of a model's embeddings as vectors with names, for gensim and its like.

`vectors.txt` is word2vec's text: a line with the number and the size of the vectors, then for each
piece a line with its name and its numbers, as many digits as give the same float32 again.
`vectors.safetensors` holds `tokens` (V, D) in the order of the tokenizer's ids and, of word2vec,
`context` (V, D), the vectors of what is predicted.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from llm_jax.config import RunConfig, UserError
from llm_jax.config.wording import counted
from llm_jax.convert import tensor_file
from llm_jax.convert.hf_export import Exported, refuse_nonempty
from llm_jax.data.tokenizers import Tokenizer
from llm_jax.runs.files import new_folder

TEXT, TENSORS = "vectors.txt", "vectors.safetensors"


def export_vectors(
    config: RunConfig, params: dict[str, Any], tokenizer: Tokenizer, out: Path
) -> Exported:
    """Writes the folder `out`, which must be empty or not exist. A failure leaves it as it was.

    Args:
      params: tree of the model's `init`; arrays or `StoredArray`s.

    Raises:
      UserError: `out` is not empty, or the family keeps its table elsewhere than embed/tokens.
    """
    refuse_nonempty(out)
    size, tables = tokenizer.vocab_size, dict[str, np.ndarray]()
    for name, key in (("tokens", "embed"), ("context", "context")):
        held = params.get(key)
        if isinstance(held, dict) and "tokens" in held:
            tables[name] = np.ascontiguousarray(np.asarray(held["tokens"], np.float32)[:size])
    if "tokens" not in tables:
        raise UserError(
            f"--to word2vec writes the table at embed/tokens, which model.kind "
            f"{config.model.kind!r} has not: there is nothing to export."
        )
    names, renamed = names_of(tokenizer)
    with new_folder(out) as folder:
        with (folder / TEXT).open("w", encoding="utf-8", newline="\n") as file:
            file.write(f"{size} {tables['tokens'].shape[1]}\n")
            for name, row in zip(names, tables["tokens"], strict=True):
                file.write(f"{name} {' '.join(np.char.mod('%.9g', row))}\n")
        shapes = {name: rows.shape for name, rows in tables.items()}
        tensor_file.write(folder / TENSORS, shapes, np.dtype(np.float32), iter(tables.values()))
        written = sum((folder / file).stat().st_size for file in (TEXT, TENSORS))
    notes = []
    if renamed:
        notes.append(
            f"{counted(renamed, 'piece')} with white space in the name, or with another's name, "
            "are <id:NUMBER>"
        )
    reason = "the file holds vectors, not a model"
    return Exported("vectors", [TEXT, TENSORS], written, None, reason, notes)


def names_of(tokenizer: Tokenizer) -> tuple[list[str], int]:
    """The name of each id, and how many are not the tokenizer's own spelling: no name is empty,
    holds white space, or occurs twice."""
    pieces = tokenizer.pieces(range(tokenizer.vocab_size))
    often = Counter(pieces)
    names = [
        piece if piece and often[piece] == 1 and not any(map(str.isspace, piece)) else f"<id:{i}>"
        for i, piece in enumerate(pieces)
    ]
    return names, sum(name != piece for name, piece in zip(names, pieces, strict=True))
