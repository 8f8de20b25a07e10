"""Needle in a haystack: a fact at a known depth of a text of a known length (Kamradt 2023).

The haystack has other facts of the same kind, so the answer cannot be found by its form.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from llm_jax.evals.tasks.bundled.questions import (
    Answers,
    Question,
    choice_figures,
    dealt,
    question,
    shuffled,
    splits,
)

LENGTHS = (250, 500, 1000, 2000)
"""Characters of the haystack."""
DEPTHS = (0, 25, 50, 75, 100)
"""Place of the fact, in percent of the haystack."""
EACH = 8
"""Questions of each length and depth."""
HAY = {
    "en": (
        "The rain fell all morning on the old road.",
        "A train left the station without a sound.",
        "Nobody had opened the window since the spring.",
        "The garden behind the house was full of leaves.",
        "Two boats came back before the evening.",
        "The bread was still warm in the kitchen.",
        "Somebody had left a book on the stairs.",
        "The wind turned and blew from the north.",
    ),
    "ja": (
        "朝から古い道に雨が降っていた。",
        "電車は音もなく駅を出た。",
        "春から誰もその窓を開けていない。",
        "家の裏の庭は落ち葉でいっぱいだった。",
        "夕方の前に船が二そう戻ってきた。",
        "台所のパンはまだ温かかった。",
        "誰かが階段に本を置いていった。",
        "風向きが変わって北から吹いた。",
    ),
}
COLOURS = {
    "en": ["red", "blue", "green", "white", "black", "yellow"],
    "ja": ["赤い", "青い", "緑の", "白い", "黒い", "黄色い"],
}
FORMS = {
    "en": (
        "The number of the {colour} door is {number}.",
        " ",
        "\nThe number of the {colour} door is",
    ),
    "ja": ("{colour}扉の番号は{number}です。", "", "\n{colour}扉の番号は"),
}


def english(**_: Any) -> Any:
    return _asked("needle_en", "en")


def japanese(**_: Any) -> Any:
    return _asked("needle_ja", "ja")


def figures(doc: Question, answers: Answers) -> dict[str, float]:
    """Those of a choice; accuracy by length and by depth too."""
    found = choice_figures(doc, answers)
    right = found["acc"]
    return found | {f"acc_length_{doc['length']}": right, f"acc_depth_{doc['depth']}": right}


def _asked(name: str, language: str) -> Any:
    draw = random.Random(name)
    made = [
        _one(draw, language, length, depth)
        for length in LENGTHS
        for depth in DEPTHS
        for _ in range(EACH)
    ]
    return splits(dealt(name, shuffled(name, made)))


def _one(draw: random.Random, language: str, length: int, depth: int) -> Question:
    fact, space, asked = FORMS[language]
    colours, numbers = draw.sample(COLOURS[language], 4), draw.sample(range(1000, 10_000), 4)
    facts = [fact.format(colour=c, number=n) for c, n in zip(colours, numbers, strict=True)]
    hay = _hay(draw, HAY[language], length - sum(len(one + space) for one in facts), space)
    for other in facts[1:]:
        hay.insert(draw.randrange(len(hay) + 1), other)
    hay.insert(round(len(hay) * depth / 100), facts[0])
    context = space.join(hay) + asked.format(colour=colours[0])
    wrong = [f"{space}{number}" for number in numbers[1:]]
    return question(draw, context, f"{space}{numbers[0]}", wrong, length=length, depth=depth)


def _hay(draw: random.Random, sentences: Sequence[str], length: int, space: str) -> list[str]:
    made: list[str] = []
    while sum(len(one + space) for one in made) < length:
        made.append(draw.choice(sentences))
    return made
