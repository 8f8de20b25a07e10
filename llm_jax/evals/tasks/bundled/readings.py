"""Readings of numbers in English, whose traps are ordinals (11th, 21st) and fractions."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable
from typing import Any

from llm_jax.evals.tasks.bundled.questions import Question, dealt, question, splits

ORDINALS = {1: "st", 2: "nd", 3: "rd"}
ONES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
TEENS = [
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
PARTS = {2: "half", 3: "third", 4: "quarter", 5: "fifth", 6: "sixth", 7: "seventh",
         8: "eighth", 9: "ninth", 10: "tenth", 12: "twelfth"}  # fmt: skip
ENDS = ("th", "st", "nd", "rd")
LARGEST = 199
"""Of the ordinals."""
BLOCKS = 16
"""Of four questions, of each kind."""


def english(**_: Any) -> Any:
    """Each ending of an ordinal is right as often as the others. Of the numbers and the fractions
    four questions have the same four choices, of which each is right once. So who likes a choice by
    itself is right by chance."""
    draw = random.Random("readings_en")
    ordinals = [one for end in ENDS for one in _ordinals(draw, end)]
    draw.shuffle(ordinals)
    numbers, fractions = _numbers(draw), _fractions(draw)
    shown = [*ordinals[BLOCKS * 4 :], *numbers[BLOCKS], *fractions[BLOCKS]]
    asked = [
        *ordinals[: BLOCKS * 4],
        *itertools.chain(*numbers[:BLOCKS]),
        *itertools.chain(*fractions[:BLOCKS]),
    ]
    draw.shuffle(asked)
    return splits(dealt("readings_en", asked), dealt("shots of readings_en", shown))


def ordinal(n: int) -> str:
    """11th and 112th, but 21st and 102nd."""
    return f"{n}{'th' if n % 100 in (11, 12, 13) else ORDINALS.get(n % 10, 'th')}"


def _ordinals(draw: random.Random, end: str) -> list[Question]:
    """Of those that end in "th" some end in 11, 12 or 13 before it."""
    known = [n for n in range(1, LARGEST + 1) if ordinal(n) == f"{n}{end}"]
    traps = [n for n in known if n % 100 in (11, 12, 13)]
    easy = [n for n in known if n not in traps]
    made = []
    for n in traps + draw.sample(easy, BLOCKS + 2 - len(traps)):
        wrong = [f" {n}{other}" for other in ENDS if other != end]
        context = f"Number {n} in the line is the"
        made.append(question(draw, context, f" {n}{end}", wrong, kind="ordinal"))
    return made


def words(n: int) -> str:
    """A number below 100 in words."""
    if n < 20:
        return ONES[n] if n < 10 else TEENS[n - 10]
    return TENS[n // 10 - 2] + (f"-{ONES[n % 10]}" if n % 10 else "")


def _numbers(draw: random.Random) -> list[list[Question]]:
    """Blocks of numbers that sound alike: all of one word, or all of two."""
    blocks = [(13, 14, 30, 40), (15, 16, 50, 60), (17, 18, 70, 80)]
    tens, ones = draw.sample(range(2, 10), 8), draw.sample(range(1, 10), 8)
    for a, b in zip(tens[::2], tens[1::2], strict=True):
        blocks += [
            (10 * a + c, 10 * a + d, 10 * b + c, 10 * b + d)
            for c, d in zip(ones[::2], ones[1::2], strict=True)
        ]
    draw.shuffle(blocks)
    return [
        [_one_of(draw, f"In words, {n} is", words(n), map(words, block), "number") for n in block]
        for block in blocks
    ]


def _fractions(draw: random.Random) -> list[list[Question]]:
    """Blocks of a/b, b/a, a/c and c/a. No two numbers are together in two blocks."""
    left = draw.sample([*itertools.combinations(sorted(PARTS), 2)], 45)
    blocks = []
    while left:
        first = left.pop()
        other = next((pair for pair in left if {*pair} & {*first}), None)
        if other:
            left.remove(other)
            blocks.append([first, first[::-1], other, other[::-1]])
    made: list[list[Question]] = []
    for block in blocks:
        every = [f"{up}/{down}" for up, down in block]
        made.append([])
        for up, down in block:
            parts = {2: "halves"}.get(down, f"{PARTS[down]}s")
            context = f"As a fraction, {words(up)} {parts} is"
            made[-1].append(_one_of(draw, context, f"{up}/{down}", every, "fraction"))
    return made


def _one_of(
    draw: random.Random, context: str, right: str, every: Iterable[str], kind: str
) -> Question:
    return question(draw, context, f" {right}", [f" {w}" for w in every if w != right], kind=kind)
