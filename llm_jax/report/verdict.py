"""Whether a run came out as its plan said."""

from __future__ import annotations

from typing import Any

from llm_jax.report.amounts import SECONDS, in_units, span

WITHIN, BELOW, ABOVE = "within", "below", "above"
INTERVAL = {"loss": "predicted_loss_interval", "step_seconds": "predicted_step_seconds_range"}
"""Figure that is judged → its 90% interval."""
WORDS = {WITHIN: "as", BELOW: "better than", ABOVE: "worse than"}
NOUN = {"loss": "loss", "step_seconds": "step time"}


def verdicts(found: dict[str, Any]) -> dict[str, str | None]:
    """Where the measured `loss` and `step_seconds` are relative to their 90% interval.

    Args:
      found: the figures of `outcome.compare`.

    Returns:
      `within`, `below` or `above`; None where there is no interval.
    """
    return {
        key: _place(found[f"measured_{key}"], found[interval]) for key, interval in INTERVAL.items()
    }


def _place(measured: float, interval: list[float] | None) -> str | None:
    if not interval or interval[0] == interval[1]:
        return None
    return BELOW if measured < interval[0] else ABOVE if measured > interval[1] else WITHIN


def sentences(found: dict[str, Any]) -> list[str]:
    """The verdicts in words, with their figures; empty if nothing was predicted."""
    lines = []
    for noun, key, form in (
        ("The validation loss, in nats per token,", "loss", "{:.3f}".format),
        ("The step time", "step_seconds", _seconds),
    ):
        predicted, measured = found[f"predicted_{key}"], found[f"measured_{key}"]
        if predicted is None:
            continue
        off = measured / predicted - 1
        side = "below" if off < 0 else "above"
        told = f"{noun} is {form(measured)}, {abs(off):.1%} {side} the predicted {form(predicted)}"
        place = found["verdict"][key]
        if place is None:
            lines.append(f"{told}; the plan gave no interval.")
        else:
            low, high = found[INTERVAL[key]]
            lines.append(f"{told}, and {place} its 90% interval, {span(low, high, form)}.")
    return lines


def headline(found: dict[str, Any]) -> tuple[str, str]:
    """The verdict in a few words, and whether it is "good", a "note" or a "warn"ing.

    A lower loss and a shorter step are better. What has no interval is not judged, and named.
    """
    places = found["verdict"]
    judged = {
        word: " and ".join(NOUN[key] for key, place in places.items() if place == at)
        for at, word in WORDS.items()
    }
    words = ", ".join(f"{nouns} {word} predicted" for word, nouns in judged.items() if nouns)
    if not words:
        return "Without an interval, there is no verdict", "note"
    unjudged = [NOUN[key] for key, place in places.items() if not place and found[INTERVAL[key]]]
    words += "".join(f"; no interval for the {noun}" for noun in unjudged)
    kind = "warn" if ABOVE in places.values() else "note" if unjudged else "good"
    return words[0].upper() + words[1:], kind


def narrower(found: dict[str, Any], run: str) -> str | None:
    """How the next plan's time gets a narrower interval; None for a CPU or an unplanned run."""
    if found["predicted_step_seconds"] is None or found["machine"].endswith("local"):
        return None
    return (
        f"`llm-jax report {run} --calibrate` with the --chip and --chips of this run narrows the "
        "interval of later plans."
    )


def _seconds(value: float) -> str:
    return in_units(value, SECONDS)
