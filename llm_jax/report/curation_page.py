"""What a curation did, as a self-contained HTML page: flow, steps, thresholds, examples."""

from __future__ import annotations

from functools import partial
from typing import Any

from llm_jax.config.wording import counted
from llm_jax.report.amounts import BYTES, in_units
from llm_jax.report.curation_charts import flow, histogram
from llm_jax.report.curation_examples import examples
from llm_jax.report.html import UNKNOWN, document, figure, head, pair, section, table
from llm_jax.report.svg import svg

TITLE = "What the curation took"
FLOW = (5.0, 3.8)
"""Inches. With more, the text would be too small on a phone."""
HISTOGRAMS = 4
"""Of each step: those of the checks that dropped most."""
NAMED = 50
"""Rows of a table by source or language."""


def page(info: dict[str, Any]) -> str:
    """The page of a curation; `info` is the content of curation.json."""
    sections = [
        head(TITLE, _line(info), _tiles(info)),
        section("Flow", _flows(info)),
        section("Steps", table(_step_rows(info), STEPS)),
        section("By source", _by(info, "by_source", "source")),
        section("By language", _by(info, "by_language", "language")),
    ]
    for step in info["steps"]:
        sections.append(section(step["name"], _step(step, info["tally"]["steps"][step["name"]])))
    return document(TITLE, sections)


STEPS = ["step", "documents in #", "dropped #", "share #", "changed #", "bytes less #",
         "tokens less #", "reasons"]  # fmt: skip


def _line(info: dict[str, Any]) -> str:
    names = ", ".join(step["name"] for step in info["steps"]) or "no step"
    return f"{counted(len(info['by_source']), 'source')} · {names} · {info['fingerprint'][:12]}"


def _tiles(info: dict[str, Any]) -> list[tuple[str, str, str]]:
    documents, size, tokens = info["documents"], info["bytes"], info["tokens"]
    tiles = [
        ("documents left", f"{documents['out']:,}", f"of {documents['in']:,}"),
        ("text left", in_units(size["out"], BYTES), f"of {in_units(size['in'], BYTES)}"),
        ("share of the bytes", share(size["out"], size["in"]), "that was kept"),
    ]
    if tokens:
        tiles.append(("tokens left", f"{tokens['out']:,}", f"of {tokens['in']:,}"))
    return tiles


def share(part: float, whole: float) -> str:
    """A share in percent: `0.04%`, `12.5%`."""
    return f"{100 * part / whole:.3g}%" if whole else UNKNOWN


def _flows(info: dict[str, Any]) -> str:
    return pair(
        *(
            figure(
                svg(partial(flow, info=info, part=part), _flow_words(info, name), FLOW),
                f"Bytes that are left after each step, by {name}.",
            )
            for part, name in ((0, "source"), (1, "language"))
        )
    )


def _flow_words(info: dict[str, Any], name: str) -> str:
    took = ", ".join(f"{step['name']} takes {step['bytes']:,}" for step in info["steps"])
    return f"Bytes by {name}: {info['bytes']['in']:,} come in; {took or 'no step takes any'}."


def _step_rows(info: dict[str, Any]) -> list[list[str]]:
    rows = []
    for step in info["steps"]:
        came = step["kept"] + step["dropped"]
        reasons = ", ".join(
            f"{name} {count:,}" for name, count in list(step["reasons"].items())[:3]
        )
        tokens = UNKNOWN if step["tokens"] is None else f"{step['tokens']:,}"
        rows.append(
            [
                step["name"],
                f"{came:,}",
                f"{step['dropped']:,}",
                share(step["dropped"], came),
                f"{step['changed']:,}",
                f"{step['bytes']:,}",
                tokens,
                reasons or UNKNOWN,
            ]
        )
    return rows


def _by(info: dict[str, Any], key: str, name: str) -> str:
    units = ["documents", "bytes", *(["tokens"] if info["tokens"] else [])]
    titles = [name, *(f"{unit} {way} #" for unit in units for way in ("in", "out")), "bytes kept #"]
    largest = sorted(info[key].items(), key=lambda item: -item[1]["in"]["bytes"])
    rows = [
        [
            source,
            *(f"{ways[way][unit]:,}" for unit in units for way in ("in", "out")),
            share(ways["out"]["bytes"], ways["in"]["bytes"]),
        ]
        for source, ways in largest[:NAMED]
    ]
    more = f"<p class='soft'>and {len(largest) - NAMED} more</p>" if largest[NAMED:] else ""
    return table(rows, titles) + more


def _step(step: dict[str, Any], tally: dict[str, Any]) -> str:
    """A step's histograms, changes and examples."""
    names = sorted(tally["bins"], key=lambda name: -tally["reasons"].get(name, 0))
    drawings = [_histogram(name, tally) for name in names[:HISTOGRAMS]]
    edits = [[what, f"{count:,}"] for what, count in step["edits"].items()]
    changes = table(edits, ["change", "times #"]) if edits else ""
    pairs = "".join(pair(*drawings[i : i + 2]) for i in range(0, len(drawings), 2))
    return pairs + changes + examples(tally["examples"])


def _histogram(name: str, tally: dict[str, Any]) -> str:
    held, dropped = tally["bins"][name], tally["reasons"].get(name, 0)
    words = f"{name}: kept {_bounds(held)}, {dropped:,} documents dropped."
    return figure(svg(partial(histogram, name=name, held=held), words), words)


def _bounds(held: dict[str, Any]) -> str:
    low, high = held["low"], held["high"]
    if low is None:
        return f"up to {high:,g}"
    return f"from {low:,g}" + ("" if high is None else f" to {high:,g}")
