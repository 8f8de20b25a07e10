"""What a run reads of each of its texts, as rows of texts, from a plan's JSON object."""

from __future__ import annotations

from typing import Any

from llm_jax.report.wording import short

HEAD = ["Source", "Share #", "Unique tokens #", "Tokens read #", "Epochs #", "Worth new tokens #"]
"""Headings; those of numbers end with ' #'."""


def source_rows(r: dict[str, Any]) -> list[list[str]]:
    """One row per source, in the order of `HEAD`; empty if none was named."""
    return [
        [
            one["name"] + (" (binds)" if one["binding"] and len(r["sources"]) > 1 else ""),
            f"{one['share']:.0%}",
            short(one["unique_tokens"]),
            short(one["tokens"]),
            f"{one['epochs']:.3g}",
            short(one["effective_tokens"]),
        ]
        for one in r["sources"]
    ]


def source_lines(r: dict[str, Any]) -> list[str]:
    """The rows as lines of text; empty if no source was named."""
    if not r["sources"]:
        return []
    rows = [[title.removesuffix(" #") for title in HEAD], *source_rows(r)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEAD))]
    return ["", "Sources:"] + [
        "  " + row[0].ljust(widths[0]) + "".join(
            f"  {cell.rjust(width)}" for cell, width in zip(row[1:], widths[1:], strict=True)
        )
        for row in rows
    ]  # fmt: skip
