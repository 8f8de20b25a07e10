"""What the `dataset.json` of a dataset must hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from llm_jax.config.errors import UserError
from llm_jax.config.jsonfile import read_json, require_shape
from llm_jax.config.migrations import too_new

INFO_FILE = "dataset.json"
DATASET_FORMAT = 4
"""Raised whenever the same inputs come to give a different dataset."""
Class = Literal["public", "internal", "restricted"]
"""Who may see a text, and what is made of it."""
INTERNAL: Class = "internal"
"""The class of a source that says none: nobody has declared it public."""
_SPLIT = {"documents": int, "tokens": int, "bytes": int}
_SOURCE = {
    "name": str,
    "input": str,
    "encoding": (str,),
    "licence": str,
    "class": str,
    "files": [{"path": str, "sha256": str, "bytes": int}],
    "documents": (int,),
    "bytes": (int,),
    "tokens": (int,),
}
SHAPE: dict[str, Any] = {
    "format": (int,),
    "sources": [_SOURCE],
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

    Each of its `sources` has `name`, `licence`, `class`, `files` and the `documents`, `bytes` (of
    UTF-8 text) and `tokens` that it gave; these are null where an older format did not count them.

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
        _complete_sources(info)
        require_shape(info, SHAPE)
        for name in ("tokens", "record_tokens", "vocab_size"):
            if info[name] == 0:
                raise UserError(f"{name} is 0")
    except UserError as error:
        raise UserError(f"{path} is damaged ({error}): build the dataset again.") from None
    return info


def _complete_sources(info: Any) -> None:
    """Gives the sources of a dataset before format 4 the fields that it lacks."""
    require_shape(info, {"format": (int,), "sources": [{"input": str, "licence": (str,)}]})
    if (info.get("format") or 1) >= 4:
        return
    alone = len(info["sources"]) == 1
    for source in info["sources"]:
        source["name"] = source["input"]
        source["licence"] = source.get("licence") or "unknown"
        source |= {"class": INTERNAL, "files": []}
        source["documents"] = info["documents"]["out"] if alone else None
        source |= {name: info[name] if alone else None for name in ("bytes", "tokens")}
