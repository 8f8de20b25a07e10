"""What keeps a model from being public, by the licence and the class of what it has read."""

from __future__ import annotations

from typing import Any

import pytest

from llm_jax.config import UserError
from llm_jax.convert.release import card_rows, check_release, obstacles


def lineage(licence: str, class_: str, began: dict[str, Any] | None = None) -> dict[str, Any]:
    """Of a run that has read 100 tokens of one source, `text`."""
    source = {"name": "text", "licence": licence, "class": class_, "documents": 1, "tokens": 100}
    read = {"text": "d", "tokens": 100, "rows": [0, 1], "seed": 0, "seq_len": 10}
    return {
        "format": 1, "run": "run", "step": 1, "tokens": 100, "began": began, "branches": [],
        "stages": [{"run": "run", "stage": 0, "first": 0, "end": 1, "read": [read]}],
        "texts": {"d": {"name": "set", "path": None, "tokens": 100, "sources": [source]}},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("licence", "class_", "why", "final"),
    [
        ("MIT", "public", [], False),
        ("MIT", "internal", ["class internal"], False),
        ("MIT", "restricted", ["class restricted"], True),
        ("MIT", "secret", ["class secret"], False),  # only "public" is
        ("", "public", ["licence unknown"], False),
        ("CC-BY-ND-4.0", "public", ["licence CC-BY-ND-4.0"], True),
    ],
)
def test_what_a_source_says(licence: str, class_: str, why: list[str], final: bool) -> None:
    held = lineage(licence, class_)
    assert [one.why for one in obstacles(held)] == why
    if not why:
        check_release(held, [])
        return
    with pytest.raises(UserError, match=why[0]):
        check_release(held, [])
    if final:
        with pytest.raises(UserError, match="has not read it"):
            check_release(held, ["text"])
    else:
        check_release(held, ["text"])


def test_a_model_of_unknown_licence_is_vouched_for_by_its_name() -> None:
    began = {"kind": "model", "run": "/m", "name": "m", "step": 0, "licence": None, "lineage": None}
    held = lineage("MIT", "public", began)
    with pytest.raises(UserError, match=r"m \(a model, licence unknown\)"):
        check_release(held, [])
    check_release(held, ["m"])


def test_a_name_does_not_break_the_table_of_the_card() -> None:
    *_, row = card_rows(lineage("MIT | mine\n# Title", "public"))
    assert row == r"| run | set | text | MIT \| mine # Title | public | 100 |"
