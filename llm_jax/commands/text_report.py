"""Lines of output for verbs that read text: what was left out, and what a dataset holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llm_jax.config.wording import counted


def losses(dropped: dict[str, int]) -> str:
    """Dropped documents by reason, for a person."""
    return ", ".join(f"{reason} {n:,}" for reason, n in dropped.items()) or "none"


def loss_lines(lost: dict[str, Any], named_in: Path | None = None) -> list[str]:
    """The last line of a verb's output, about text that could not be used; none if all could.

    Args:
      lost: what `LeftOut.summary` returns.
      named_in: file that lists each loss.
    """
    from llm_jax.data.sources.left_out import reasons

    if not lost["count"]:
        return []
    share = lost["count"] / lost["of"]
    most = "Most of the text is missing: " if share > 0.5 else ""
    where = f" See {named_in}." if named_in else ""
    return [
        f"{most}{lost['count']:,} of {lost['of']:,} documents ({share:.1%}) could not be used: "
        f"{reasons(lost)}.{where}"
    ]


def coverage_text(coverage: float | None) -> str:
    """The character coverage of a trained tokenizer, as text; empty from `COVERAGE` on."""
    from llm_jax.data.tokenizers.training import COVERAGE

    if coverage is None or coverage >= COVERAGE:
        return ""
    return f", {coverage:.2%} of the characters have a piece, the others are bytes"


def split_lines(splits: dict[str, dict[str, int]]) -> list[str]:
    """What each split of a dataset holds."""
    return [
        f"  {name:<11}{split['tokens']:,} tokens of {counted(split['documents'], 'document')}"
        for name, split in splits.items()
    ]


def source_lines(sources: list[dict[str, Any]]) -> list[str]:
    """What each source of a dataset gave, and under which licence."""
    lines = []
    for one in sources:
        how = ", ".join(filter(None, (one.get("encoding"), one["licence"], one["class"])))
        gave = ""
        if one["tokens"] is not None:  # datasets of older formats do not count it
            gave = f": {one['tokens']:,} tokens of {counted(one['documents'], 'document')}"
        lines.append(f"  source     {one['name']} ({how}){gave}")
    return lines


CHOSEN_BY = {
    "text": "",
    "size": "; chosen in random order until they were enough",
    "position": "; some documents are too large, so the end of each of them is held out",
    "document": "; there is too little text to cut, so the smallest document is held out",
}


def held_out_line(info: dict[str, Any]) -> str:
    """How much of a dataset's text is held out, how much of that is in train, how it was chosen."""
    held_out = info["held_out"]
    return (
        f"{held_out['share']:.2%} of the text, {held_out['also_in_train']:,} of its documents also "
        f"in train{CHOSEN_BY[held_out['chosen_by']]}"
    )
