"""Sums, differences and products of small numbers, in digits and in words.

The choices are four numbers in equal steps. The right one is the smallest of them as often as the
second, the third and the largest, so that who likes large or small numbers is right by chance.
"""

from __future__ import annotations

import functools
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
    return _drawn("arithmetic_en", "en")


def japanese(**_: Any) -> Any:
    return _drawn("arithmetic_ja", "ja")


def _drawn(name: str, language: str) -> Any:
    made = [
        functools.partial(_ask, language=language, sign=sign, place=place)
        for sign in "+-*"
        for place in range(4)
    ]
    return drawn(name, made, count=16 * len(made))


def _ask(draw: random.Random, language: str, sign: str, place: int) -> Question:
    """`place`: how many of the wrong numbers are smaller than the right one."""
    most, right, step = 12 if sign == "*" else 60, 0, 1
    while right < step * place or right < 2:  # no number is negative
        a, b = sorted((draw.randint(2, most), draw.randint(2, most)), reverse=True)
        right = {"+": a + b, "-": a - b, "*": a * b}[sign]
        # Off by one, by ten, by one factor. A sum that is off by b is in the question.
        step = draw.choice((1, 2, 10, b) if sign == "*" else (1, 2, 10))
    wrong = [right + (other - place) * step for other in range(4) if other != place]
    space = " " if language == "en" else ""
    context = draw.choice(FORMS[language][sign]).format(a=a, b=b)
    return question(
        draw, context, f"{space}{right}", [f"{space}{value}" for value in wrong], sign=sign
    )
