"""Sums, differences and products of small numbers, in digits and in words."""

from __future__ import annotations

import random
from typing import Any

from llm_jax.evals.tasks.bundled.questions import Question, drawn, question

FORMS = {
    "en": {
        "+": ("{a} + {b} =", "{a} plus {b} equals"),
        "-": ("{a} - {b} =", "{a} minus {b} equals"),
        "*": ("{a} * {b} =", "{a} times {b} equals"),
    },
    "ja": {
        "+": ("{a}＋{b}＝", "{a}に{b}を足すと、"),
        "-": ("{a}－{b}＝", "{a}から{b}を引くと、"),
        "*": ("{a}×{b}＝", "{a}に{b}を掛けると、"),
    },
}


def english(**_: Any) -> Any:
    return drawn("arithmetic_en", lambda draw: _ask(draw, "en"))


def japanese(**_: Any) -> Any:
    return drawn("arithmetic_ja", lambda draw: _ask(draw, "ja"))


def _ask(draw: random.Random, language: str) -> Question:
    sign = draw.choice("+-*")
    a, b = draw.randint(2, 12 if sign == "*" else 60), draw.randint(2, 12 if sign == "*" else 60)
    a, b = max(a, b), min(a, b)
    right = {"+": a + b, "-": a - b, "*": a * b}[sign]
    # Near misses: off by one, off by ten, off by one factor.
    near = {right + 1, right - 1, right + 10, right - 10, right + b, right + 2} - {right}
    wrong = draw.sample(sorted(value for value in near if value >= 0), 3)
    space = " " if language == "en" else ""
    context = draw.choice(FORMS[language][sign]).format(a=a, b=b)
    return question(
        draw, context, f"{space}{right}", [f"{space}{value}" for value in wrong], sign=sign
    )
