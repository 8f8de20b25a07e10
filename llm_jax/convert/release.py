"""Whether a model may be made public, by the licences and classes of what it was trained on.

It follows what the datasets declare. It gives no legal advice: a licence that is named and does not
forbid the release in its own name is taken to allow it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from llm_jax.config import UserError
from llm_jax.runs.lineage import UNKNOWN, Lineage, ancestors, origin, sources_read

PUBLIC, RESTRICTED = "public", "restricted"
FORBIDS = re.compile(
    r"proprietary|all rights reserved|confidential|no[- ]?derivatives|-nd\b|no[- ]?redistribution",
    re.IGNORECASE,
)
"""Licences whose name says that nothing made of the text may be passed on."""


@dataclass(frozen=True)
class Obstacle:
    """Why something that the model has read keeps it from being public."""

    name: str
    why: str
    tokens: int | None
    final: bool
    """Whether nobody can vouch for it."""

    def __str__(self) -> str:
        size = "" if self.tokens is None else f", {self.tokens:,} tokens"
        return f"{self.name} ({self.why}{size})"


def obstacles(lineage: Lineage) -> list[Obstacle]:
    """All that keeps a model of this lineage from being public, whether vouched for or not."""
    tokens: dict[tuple[str, str, str], int] = {}
    for one in sources_read(lineage):
        key = one.source, one.licence, one.class_
        tokens[key] = tokens.get(key, 0) + one.tokens
    found = []
    for (name, licence, class_), count in tokens.items():
        for why, final in _reasons(licence, class_):
            found.append(Obstacle(name, why, count, final))
    return found + _of_the_beginning(lineage)


def _reasons(licence: str, class_: str) -> list[tuple[str, bool]]:
    found = []
    if class_ == RESTRICTED:
        found.append((f"class {RESTRICTED}", True))
    elif class_ != PUBLIC:
        found.append((f"class {class_}", False))
    if FORBIDS.search(licence):
        found.append((f"licence {licence}", True))
    elif licence.lower() in ("", UNKNOWN):
        found.append(("licence unknown", False))
    return found


def _of_the_beginning(lineage: Lineage) -> list[Obstacle]:
    """Obstacles of a model from elsewhere, or of a run whose reading is not known."""
    began = origin(lineage)
    if began is None:
        return []
    if began["kind"] == "run":
        return [Obstacle(began["name"], "nothing is known of what this run has read", None, False)]
    reasons = _reasons(began.get("licence") or UNKNOWN, PUBLIC)
    return [Obstacle(began["name"], f"a model, {why}", None, final) for why, final in reasons]


def check_release(lineage: Lineage, vouched: Iterable[str]) -> None:
    """Raises `UserError` if a licence or a class forbids to make the model public.

    Args:
      vouched: names of sources and models that the user answers for, where their licence is
        unknown or their class was not declared public.
    """
    vouched, runs = set(vouched), [*ancestors(lineage)]
    known = {one.source for one in sources_read(lineage)} | {one["run"] for one in runs}
    known |= {one["began"]["name"] for one in runs if one.get("began")}
    for name in sorted(vouched - known):
        raise UserError(
            f"--vouch names {name!r}, which the model has not read: it has read "
            f"{', '.join(sorted(known))}."
        )
    left = [one for one in obstacles(lineage) if one.final or one.name not in vouched]
    if not left:
        return
    ways = []
    if any(one.final for one in left):
        ways.append("export a checkpoint that has not read it")
    if names := sorted({one.name for one in left if not one.final}):
        ways.append(
            "declare licence and class when the dataset is built, or answer for it with "
            f"--vouch {' '.join(map(repr, names))}"
        )
    raise UserError(
        f"--release public is refused, because the model has read {'; '.join(map(str, left))}: "
        f"{'; '.join(ways)}."
    )


def card_rows(lineage: Lineage) -> list[str]:
    """Markdown lines: everything that the model has read, and what it began with."""
    rows = [
        f"| {_cell(one.run)} | {_cell(one.text)} | {_cell(one.source)} | {_cell(one.licence)} | "
        f"{one.class_} | {'' if one.exact else 'about '}{one.tokens:,} |"
        for one in sources_read(lineage)
    ]
    if not rows:
        return []
    began = origin(lineage)
    lines = ["", "## What it has read", ""]
    if began:
        licence = began.get("licence") or UNKNOWN
        lines += [f"The first weights are those of {began['name']} (licence: {licence}).", ""]
    head = ["| run | dataset | source | licence | class | tokens |", "|---|---|---|---|---|---:|"]
    return lines + head + rows


def _cell(text: str) -> str:
    """`text` in a cell of a Markdown table."""
    return " ".join(text.split()).replace("|", r"\|")


def licences(lineage: Lineage) -> list[str]:
    """Names of all licences of what the model has read and began with."""
    names = [one.licence for one in sources_read(lineage)]
    if began := origin(lineage):
        names.append(began.get("licence") or UNKNOWN)
    return list(dict.fromkeys(names))
