"""Copying: the last word of a list that stands before, as induction heads learn it."""

from __future__ import annotations

import random
from typing import Any

from llm_jax.evals.tasks.bundled.questions import Question, drawn, question

WORDS = {
    "en": (
        [
            "river",
            "stone",
            "apple",
            "cloud",
            "table",
            "horse",
            "paper",
            "glass",
            "bread",
            "light",
            "chair",
            "music",
            "water",
            "house",
            "field",
            "train",
            "green",
            "north",
            "seven",
            "winter",
        ]
    ),
    "ja": [
        "川",
        "石",
        "林檎",
        "雲",
        "机",
        "馬",
        "紙",
        "窓",
        "麦",
        "光",
        "椅子",
        "音楽",
        "水",
        "家",
        "畑",
        "電車",
        "緑",
        "北",
        "七",
        "冬",
    ],
}
LIST = 6
"""Words of a list."""


def english(**_: Any) -> Any:
    return drawn("copying_en", lambda draw: _ask(draw, "en"))


def japanese(**_: Any) -> Any:
    return drawn("copying_ja", lambda draw: _ask(draw, "ja"))


def _ask(draw: random.Random, language: str) -> Question:
    words = draw.sample(WORDS[language], LIST)
    wrong = draw.sample(words[:-1], 3)
    if language == "ja":
        context = f"一回目：{'、'.join(words)}。二回目：{'、'.join(words[:-1])}、"
        return question(draw, context, words[-1], wrong)
    context = f"First: {' '.join(words)}. Again: {' '.join(words[:-1])}"
    return question(draw, context, f" {words[-1]}", [f" {word}" for word in wrong])
