"""A tally as the short tables that `data curate` prints and curation.json begins with."""

from __future__ import annotations

from typing import Any

from llm_jax.data.curate.tally import Amounts, Tally


def summary(tally: Tally, *, counts_tokens: bool) -> dict[str, Any]:
    """Documents, bytes and tokens in and out, of each step, and by source and language."""
    arrived, left = _total(tally.arrived), _total(tally.left)
    steps = []
    documents = arrived["documents"]
    for name, step in tally.steps.items():
        dropped, trimmed = _total(step.dropped), _total(step.trimmed)
        documents -= dropped["documents"]
        steps.append(
            {
                "name": name,
                "kept": documents,
                "dropped": dropped["documents"],
                "changed": trimmed["documents"],
                "bytes": dropped["bytes"] + trimmed["bytes"],
                "tokens": dropped["tokens"] + trimmed["tokens"] if counts_tokens else None,
                "reasons": dict(step.reasons.most_common()),
                "edits": dict(step.edits.most_common()),
            }
        )
    return {
        "documents": {"in": arrived["documents"], "out": left["documents"]},
        "bytes": {"in": arrived["bytes"], "out": left["bytes"]},
        "tokens": {"in": arrived["tokens"], "out": left["tokens"]} if counts_tokens else None,
        "steps": steps,
        "by_source": _by(tally, 0),
        "by_language": _by(tally, 1),
    }


def _total(amounts: Amounts) -> dict[str, int]:
    sums = [sum(column) for column in zip(*amounts.held.values(), strict=True)] or [0, 0, 0]
    return _named(sums)


def _by(tally: Tally, part: int) -> dict[str, dict[str, dict[str, int]]]:
    """Name of a source (part 0) or language (1) → what came in, and what came out."""
    found: dict[str, dict[str, list[float]]] = {}
    for way, amounts in (("in", tally.arrived), ("out", tally.left)):
        for key, amount in amounts.held.items():
            one = found.setdefault(key.rsplit("\t", 1)[part], {"in": [0, 0, 0], "out": [0, 0, 0]})
            one[way] = [a + b for a, b in zip(one[way], amount, strict=True)]
    return {
        name: {way: _named(amount) for way, amount in ways.items()}
        for name, ways in sorted(found.items())
    }


def _named(amount: list[float]) -> dict[str, int]:
    return dict(zip(("documents", "bytes", "tokens"), (round(a) for a in amount), strict=True))
