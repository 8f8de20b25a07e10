"""Examples of documents that a step kept, dropped or changed, as HTML."""

from __future__ import annotations

from html import escape
from typing import Any

TITLES = {
    "dropped": "dropped nearest to the threshold",
    "kept": "kept nearest to the threshold",
    "changed": "changed, at random",
}


def examples(groups: dict[str, list[dict[str, Any]]]) -> str:
    """A folded list for each group of examples that has any."""
    made = []
    for group, title in TITLES.items():
        held = groups.get(group, [])
        if held:
            items = "".join(map(_change if group == "changed" else _example, held))
            made.append(f"<details><summary>{len(held)} {title}</summary>{items}</details>")
    return "".join(made)


def _example(example: dict[str, Any]) -> str:
    wanted = " and ".join(
        f"{words} {example[side]:g}"
        for side, words in (("low", "at least"), ("high", "at most"))
        if example[side] is not None
    )
    line = f"<b>{escape(example['check'])} {example['value']:.4g}</b> (kept: {wanted})"
    return f"<h3>{line}</h3>{_place(example)}<pre>{escape(example['text'])}</pre>"


def _change(example: dict[str, Any]) -> str:
    edits = ", ".join(f"{escape(what)} {count}" for what, count in example["edits"].items())
    return (
        f"<h3>{edits}</h3>{_place(example)}<pre>{escape(example['was'])}</pre>"
        f"<pre>{escape(example['became'])}</pre>"
    )


def _place(example: dict[str, Any]) -> str:
    line = "" if example["line"] is None else f":{example['line']}"
    notes = "".join(f" · {escape(name)} {value:g}" for name, value in example["notes"].items())
    text = f"document {example['number']} · {escape(example['file'])}{line}"
    return f'<p class="soft">{text} · {escape(example["language"])}{notes}</p>'
