"""The text of a dataset folder, or of a mixture: how much there is, and which text it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_jax.config import MixtureConfig, UserError, read_dataset_info
from llm_jax.plan.limited_text import Source


@dataclass(frozen=True)
class Text:
    """The facts about a dataset of `llm-jax data build`, or about a mixture, that a plan needs."""

    path: str
    """Its folder, or the file of the mixture."""
    vocab_size: int
    tokens: int
    """Tokens of the train split; of a mixture, those that a run reads before any comes twice."""
    validation_tokens: int
    bytes_per_token: float
    name: str
    """Names of the inputs, such as `Python 3.11.7 standard library`."""
    fingerprint: str
    lost: int = 0
    """Documents that could not be used when it was built."""
    parts: tuple[Source, ...] = ()
    """The sources that a mixture reads; none if it is a dataset."""


def read(path: str | Path) -> Text:
    """The text of the dataset folder `path`.

    Raises:
      UserError: there is no finished dataset, or it is not one of text.
    """
    info = _text_info(path)
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


def read_mixture(path: str | Path, mixture: MixtureConfig, shares: Mapping[str, float]) -> Text:
    """The text of the mixture in the file `path`, of which each source has its share of a run.

    Raises:
      UserError: a dataset is missing, is not one of text, or has another tokenizer than the first.
    """
    infos = {source.name: _text_info(source.path) for source in mixture.sources}
    first = next(iter(infos.values()))
    for name, info in infos.items():
        if info["tokenizer_sha256"] != first["tokenizer_sha256"]:
            raise UserError(
                f"{path}: the source {name!r} has another tokenizer than {mixture.names[0]!r}: "
                "build it again with that tokenizer."
            )
    sizes = {name: info["splits"]["train"]["tokens"] for name, info in infos.items()}
    read = {name: share for name, share in shares.items() if share > 0}
    parts = tuple(
        Source(name=name, unique=float(sizes[name]), share=share) for name, share in read.items()
    )
    prints = {name: info["fingerprint"] for name, info in infos.items()}
    return Text(
        path=str(path),
        vocab_size=first["vocab_size"],
        tokens=int(min(part.unique / part.share for part in parts)),
        validation_tokens=min(info["splits"]["validation"]["tokens"] for info in infos.values()),
        bytes_per_token=sum(
            share * infos[name]["bytes"] / infos[name]["tokens"] for name, share in read.items()
        ),
        name=", ".join(f"{share:.3g} {name}" for name, share in read.items()),
        fingerprint=mixture.fingerprint(prints),
        lost=sum((info.get("lost") or {}).get("count", 0) for info in infos.values()),
        parts=parts,
    )


def _text_info(path: str | Path) -> dict[str, Any]:
    info = read_dataset_info(path)
    if "examples" in info:
        raise UserError(
            f"{path} holds labelled examples, and scaling laws are of text: name a dataset of "
            "`llm-jax data build`."
        )
    return info
