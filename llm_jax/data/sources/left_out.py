"""What is left out of the sources: counted exactly, and listed one by one up to a limit.

There are two kinds. A *loss* is text that could not be used: a damaged file, a wrong encoding, a
record without its text. What is *skipped* is left out on purpose: a duplicate, a hidden file, a
file without a text suffix.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

from llm_jax.config import UserError

LOST, SKIPPED = "lost", "skipped"
LISTED = 1000
"""Entries of one reason that are listed; the others are only counted."""
MOST_LEFT_OUT = 0.5
"""Share of losses above which nothing is built, unless a flag says otherwise."""
SHORT = 200
"""Most characters of a place in a sentence."""
CONTROLS = re.compile("[\x00-\x1f\x7f]")
UNREADABLE = "unreadable file"
NOT_TEXT = "not text"
CHECK = "Check --input, and how it is read (--encoding, --text-key, --max-document-bytes)"
HALF_CHARACTERS = "lone surrogates"
"""JSON's escapes can write one half of a surrogate pair alone."""


class Unusable(Exception):
    """A file, or a part of it, that cannot be used.

    Attributes:
      reason: one of a few, for counting.
      detail: what is wrong in this case.
      line: from 1, None if not known.
      cut: the file ends too early, but the data before its end are right.
    """

    def __init__(
        self, reason: str, detail: str = "", line: int | None = None, cut: bool = False
    ) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail
        self.line = line
        self.cut = cut


class LeftOut:
    """Counts and lists what is left out.

    Args:
      strict: the first loss raises `UserError`.
      most: share of losses that `check` accepts.

    Attributes:
      lost, skipped: reason → how many.

    Raises:
      UserError: `most` is not from 0 to 1.
    """

    def __init__(self, strict: bool = False, most: float = 1.0) -> None:
        if not 0 <= most <= 1:
            raise UserError(f"--max-left-out is {most}: give a share from 0 to 1.")
        self.lost: Counter[str] = Counter()
        self.skipped: Counter[str] = Counter()
        self._strict = strict
        self._most = most
        self._entries: list[dict[str, Any]] = []
        self._listed: Counter[tuple[str, str]] = Counter()
        self._first: dict[str, str] = {}

    def lose(self, reason: str, file: str, line: int | None = None, detail: str = "") -> None:
        """Records a loss; raises `UserError` if none is allowed."""
        file = printable(file)
        place = (file if line is None else f"{file}:{line}") + (f": {detail}" if detail else "")
        if self._strict:
            raise UserError(f"--strict stops at the first loss: {reason} ({_short(place)}).")
        self.lost[reason] += 1
        self._first.setdefault(reason, _short(place))
        self._name(LOST, reason, file, line, detail)

    def lose_unusable(self, error: Unusable, file: str) -> None:
        self.lose(error.reason, file, error.line, error.detail)

    def skip(self, reason: str, file: str, line: int | None = None) -> None:
        """Records something that is left out on purpose."""
        self.skipped[reason] += 1
        self._name(SKIPPED, reason, printable(file), line, "")

    def count(self, kind: str, reason: str, number: int) -> None:
        """Counts what was recorded elsewhere after the first `LISTED` of this kind and reason."""
        (self.lost if kind == LOST else self.skipped)[reason] += number
        self._listed[kind, reason] += number

    def dropped(self) -> dict[str, int]:
        """Reason → how many, of both kinds, the most frequent first."""
        return dict((self.lost + self.skipped).most_common())

    def summary(self, used: int) -> dict[str, Any]:
        """The losses, and their number out of all documents, as dataset.json stores it."""
        count = self.lost.total()
        return {
            "count": count,
            "of": count + used,
            "reasons": {
                reason: {"count": number, "first": self._first[reason]}
                for reason, number in self.lost.most_common()
            },
        }

    def check(self, used: int) -> None:
        """Raises `UserError` if too large a share of all documents, lost and `used`, is lost."""
        check_share(self.summary(used), self._most)

    def write(self, path: Path) -> None:
        """Writes one JSON object per line: kind, file, line, reason, detail.

        For a reason with more than `LISTED` entries, a last line says how many are not listed.
        """
        with path.open("w", encoding="utf-8") as file:
            for entry in [*self._entries, *self._not_named()]:
                file.write(json.dumps(entry, ensure_ascii=False) + "\n")

    def _name(self, kind: str, reason: str, file: str, line: int | None, detail: str) -> None:
        self._listed[kind, reason] += 1
        if self._listed[kind, reason] <= LISTED:
            entry = {"kind": kind, "file": file, "line": line, "reason": reason, "detail": detail}
            self._entries.append(entry)

    def _not_named(self) -> list[dict[str, Any]]:
        return [
            {"kind": kind, "reason": reason, "not_named": number - LISTED}
            for (kind, reason), number in self._listed.items()
            if number > LISTED
        ]


def check_share(losses: dict[str, Any], most: float) -> None:
    """Raises `UserError` if `losses` (a `LeftOut.summary`) are more than the share `most`."""
    if losses["count"] > most * losses["of"]:
        raise UserError(
            f"{losses['count']:,} of {losses['of']:,} documents cannot be used "
            f"({losses['count'] / losses['of']:.1%}, above --max-left-out {most:g}): "
            f"{reasons(losses)}. {CHECK}, or raise --max-left-out."
        )


def check_kept(losses: dict[str, Any], *, strict: bool, most: float) -> None:
    """Raises `UserError` if what an earlier call wrote has more `losses` than this one accepts."""
    if strict and losses["count"]:
        raise UserError(f"--strict is set, but what is in --out lacks text: {reasons(losses)}.")
    check_share(losses, most)


def reasons(losses: dict[str, Any]) -> str:
    """The reasons of a `LeftOut.summary`, each with its count and first place."""
    return ", ".join(
        f"{reason} {one['count']:,} ({'first ' if one['count'] > 1 else ''}{one['first']})"
        for reason, one in losses["reasons"].items()
    )


def printable(path: str | os.PathLike[str]) -> str:
    """A path as one line of text; bytes that are not UTF-8, and line ends, become \\xNN."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return CONTROLS.sub(lambda control: f"\\x{ord(control[0]):02x}", text)


def _short(place: str) -> str:
    """`place`, without its middle if it is too long for a sentence."""
    return place if len(place) <= SHORT else f"{place[: SHORT // 2]}…{place[-SHORT // 2 :]}"
