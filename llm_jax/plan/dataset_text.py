"""The text of a dataset folder: how much there is, and which text it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from llm_jax.config import read_dataset_info


@dataclass(frozen=True)
class Text:
    """The facts about a dataset of `llm-jax data build` that a plan needs."""

    path: str
    vocab_size: int
    tokens: int
    """Tokens of the train split."""
    validation_tokens: int
    bytes_per_token: float
    name: str
    """Names of the inputs, such as `Python 3.11.7 standard library`."""
    fingerprint: str
    lost: int = 0
    """Documents that could not be used when it was built."""


def read(path: str | Path) -> Text:
    """The text of the dataset folder `path`.

    Raises:
      UserError: there is no finished dataset.
    """
    info = read_dataset_info(path)
    return Text(
        path=str(path),
        vocab_size=info["vocab_size"],
        tokens=info["splits"]["train"]["tokens"],
        validation_tokens=info["splits"]["validation"]["tokens"],
        bytes_per_token=info["bytes"] / info["tokens"],
        name=", ".join(source["input"] for source in info["sources"]),
        fingerprint=info["fingerprint"],
        lost=(info.get("lost") or {}).get("count", 0),
    )
