"""What an encoder has above its last layer, and what that head is fine-tuned on."""

from __future__ import annotations

from typing import Literal, Protocol

from llm_jax.config.errors import require

Head = Literal["masked", "classify", "tag", "answer", "embed"]
"""masked: predicts hidden tokens. classify: one label for a text or a pair. tag: one label for each
word. answer: where in a context the answer to a question begins and ends. embed: no parameters; the
mean of the last hidden states is a text's vector."""
LABELLED: tuple[Head, ...] = ("classify", "tag", "answer", "embed")
"""Heads that learn from labelled examples; the objective of each has its name."""
NAMED: tuple[Head, ...] = ("classify", "tag")
"""Heads whose outputs have names."""
MOST_LABELS = 100_000


class WithHead(Protocol):
    """The architecture of an encoder."""

    @property
    def head(self) -> Head: ...
    @property
    def labels(self) -> tuple[str, ...]: ...


def check_head(model: WithHead) -> None:
    """Raises `ConfigError` unless the labels belong to the head."""
    labels = model.labels
    if model.head not in NAMED:
        require(
            not labels,
            f"model.labels has {len(labels)} names, but model.head is {model.head!r}, whose "
            "outputs have none: leave model.labels out.",
        )
        return
    require(
        2 <= len(labels) <= MOST_LABELS,
        f"model.labels has {len(labels)} names, but model.head is {model.head!r}: name 2 to "
        f"{MOST_LABELS:,} labels.",
    )
    require(
        len({*labels}) == len(labels) and all(labels),
        f"model.labels is {list(labels)!r}: each label needs a name of its own.",
    )


def outputs_of(model: WithHead) -> int:
    """Numbers that the head gives for a text or for a position; 0 for `masked` and `embed`."""
    return 2 if model.head == "answer" else len(model.labels)
