"""How much of each source a run reads, and whether that is more than its cap."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from llm_jax.config import ConfigError, RunConfig
from llm_jax.runs.history import History, Text
from llm_jax.runs.rollbacks import Rollback
from llm_jax.train.course import Segment, segments


@dataclass(frozen=True)
class Use:
    """What a whole run reads of one text."""

    text: Text
    tokens: int
    epochs: float
    """Times that each of its windows is read, on average."""


def segment_tokens(segment: Segment, first: int, end: int) -> list[int]:
    """Tokens of each source that the steps from `first` to before `end` of a segment read."""
    pairs = zip(segment.places(first), segment.places(end), strict=True)
    return [(b - a) * segment.entry.data.seq_len for a, b in pairs]


def uses(made: Iterable[Segment], text: Text) -> list[Use]:
    """What the segments of a run read of each source of `text`."""
    tokens, epochs = Counter[str](), defaultdict[str, float](float)
    for segment in made:
        read = segment_tokens(segment, segment.first, segment.end)
        T = segment.entry.data.seq_len
        for part, count in zip(segment.text.parts, read, strict=True):
            tokens[part.fingerprint] += count
            epochs[part.fingerprint] += count / (max((part.tokens - 1) // T, 1) * T)
    return [Use(p, tokens[p.fingerprint], epochs[p.fingerprint]) for p in text.parts]


def check_reading(
    config: RunConfig, history: History, rollbacks: list[Rollback], text: Text
) -> None:
    """Raises `ConfigError` if the run cannot read its mixture as it is configured."""
    made = list(segments(history, rollbacks, text, config.steps))
    if config.data.mixture is None:
        return
    for source, use in zip(config.data.mixture.sources, uses(made, text), strict=True):
        T = config.data.seq_len
        # A blend has its shares to within one sequence.
        slack = len(made) / max((use.text.tokens - 1) // T, 1)
        if source.max_epochs is not None and use.epochs > source.max_epochs + slack:
            raise ConfigError(
                f"data.mixture: the run reads {source.name!r} {use.epochs:.4g} times "
                f"({use.tokens:,} tokens of its {use.text.tokens:,}), above max_epochs = "
                f"{source.max_epochs:g}: lower its weight, give the run fewer steps, or raise "
                "max_epochs."
            )
