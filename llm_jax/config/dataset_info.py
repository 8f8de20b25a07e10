"""What the `dataset.json` of a dataset must hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llm_jax.config.errors import UserError
from llm_jax.config.jsonfile import read_json, require_shape
from llm_jax.config.migrations import too_new

INFO_FILE = "dataset.json"
DATASET_FORMAT = 3
"""Raised whenever the same inputs come to give a different dataset."""
_SPLIT = {"documents": int, "tokens": int, "bytes": int}
SHAPE: dict[str, Any] = {
    "format": (int,),
    "sources": [{"input": str, "encoding": (str,), "licence": (str,)}],
    "lost": ({"count": int},),
    "documents": {"in": int, "out": int},
    "dropped": {str: int},
    "licences": {str: int},
    "split_by": str,
    "splits": {"train": _SPLIT, "validation": _SPLIT},
    "tokens": int,
    "bytes": int,
    "text_bytes": int,
    "tokenizer_sha256": str,
    "vocab_size": int,
    "record_tokens": int,
    "fingerprint": str,
}
"""Shape of the fields that are read; a build writes more."""


def read_dataset_info(folder: str | Path) -> dict[str, Any]:
    """The `dataset.json` in `folder`, of the shape `SHAPE`, with some tokens in it.

    Raises:
      UserError: there is none, or it is damaged.
    """
    path = Path(folder) / INFO_FILE
    if not path.is_file():
        raise UserError(
            f"There is no dataset in {str(folder)!r}: make one with `llm-jax data build`."
        )
    info = read_json(path)
    written = info.get("format") if isinstance(info, dict) else None
    if problem := too_new(f"{path} has format", written, DATASET_FORMAT):
        raise UserError(problem)
    try:
        require_shape(info, SHAPE)
        for name in ("tokens", "record_tokens", "vocab_size"):
            if info[name] == 0:
                raise UserError(f"{name} is 0")
    except UserError as error:
        raise UserError(f"{path} is damaged ({error}): build the dataset again.") from None
    return info
