"""Counters and readings: how numbers sound with what they count, and what fractions mean.

In Japanese the number changes the counter's first sound and the other way round: 二本 is にほん,
三本 さんぼん, 一本 いっぽん. Fractions use 分 with another reading than minutes do: 三分 is
さんぷん, 三分の一 さんぶんのいち. In English the traps are ordinals (11th, 21st) and fractions.
"""

from __future__ import annotations

import random
from typing import Any

from llm_jax.evals.tasks.bundled.questions import (
    Question,
    dealt,
    drawn,
    question,
    shuffled,
    splits,
)

KANJI = "一二三四五六七八九十"
PLAIN = ["いち", "に", "さん", "よん", "ご", "ろく", "なな", "はち", "きゅう", "じゅう"]
SHORT = {1: "いっ", 6: "ろっ", 8: "はっ", 10: "じゅっ"}
"""Numbers that may lose their last sound before a counter."""
H_ROW = {"は": "ばぱ", "ひ": "びぴ", "ふ": "ぶぷ", "ほ": "ぼぽ"}
VOICED = {"か": "が", "け": "げ", "さ": "ざ", "こ": "ご"}
REGULAR = {
    # Counter: its reading, numbers that are shortened, those where it is voiced, and half voiced.
    "本": ("ほん", (1, 6, 8, 10), (3,), (1, 6, 8, 10)),
    "匹": ("ひき", (1, 6, 8, 10), (3,), (1, 6, 8, 10)),
    "杯": ("はい", (1, 6, 8, 10), (3,), (1, 6, 8, 10)),
    "分": ("ふん", (1, 6, 8, 10), (), (1, 3, 4, 6, 8, 10)),
    "個": ("こ", (1, 6, 8, 10), (), ()),
    "冊": ("さつ", (1, 8, 10), (), ()),
    "歳": ("さい", (1, 8, 10), (), ()),
    "階": ("かい", (1, 6, 8, 10), (3,), ()),
    "回": ("かい", (1, 6, 8, 10), (), ()),
    "軒": ("けん", (1, 6, 8, 10), (3,), ()),
}
IRREGULAR = {
    "人": "ひとり ふたり さんにん よにん ごにん ろくにん ななにん はちにん きゅうにん じゅうにん",
    "日": "ついたち ふつか みっか よっか いつか むいか なのか ようか ここのか とおか",
    "つ": "ひとつ ふたつ みっつ よっつ いつつ むっつ ななつ やっつ ここのつ",
}
ENDINGS = {"人": ("にん", "り"), "日": ("にち", "か"), "つ": ("つ", "っつ")}
FRACTIONS = (
    (2, 1),
    (3, 1),
    (3, 2),
    (4, 1),
    (4, 3),
    (5, 1),
    (5, 2),
    (8, 1),
    (8, 3),
    (10, 1),
    (10, 3),
)
"""(denominator, numerator)"""


def japanese(**_: Any) -> Any:
    draw = random.Random("counters_ja")
    made = [_counted(draw, counter, n) for counter in REGULAR for n in range(1, 11)]
    for counter, sounds in IRREGULAR.items():
        made += [_irregular(draw, counter, n + 1) for n in range(len(sounds.split()))]
    for down, up in FRACTIONS:
        made += [_fraction_read(draw, down, up), _fraction_meant(draw, down, up)]
    pairs = [(a, b) for a in range(2, 11) for b in range(a + 1, 11)]
    made += [_compared(draw, a, b, larger=(a + b) % 2 == 0) for a, b in pairs]
    made = dealt("counters_ja", shuffled("counters_ja", made))
    return splits(made[20:], made[:20])


def reading(counter: str, n: int) -> str:
    """The usual reading of 1 to 10 with a regular counter."""
    sound, short, voiced, half = REGULAR[counter]
    number = SHORT[n] if n in short else PLAIN[n - 1]
    return number + _changed(sound, "half" if n in half else "voiced" if n in voiced else "")


def _changed(sound: str, how: str) -> str:
    first, rest = sound[0], sound[1:]
    if how == "half":
        return H_ROW[first][1] + rest
    if how == "voiced":
        return (H_ROW[first][0] if first in H_ROW else VOICED[first]) + rest
    return sound


def _counted(draw: random.Random, counter: str, n: int) -> Question:
    """Wrong are the other sounds of the counter and the other form of the number; of a number with
    one form, the neighbours. None is longer by its form: the shortest choice is no better guess."""
    sound, right = REGULAR[counter][0], reading(counter, n)
    numbers = {PLAIN[n - 1], SHORT.get(n, PLAIN[n - 1])}
    ways = ("", "voiced", "half") if sound[0] in H_ROW else ("", "voiced")
    if counter == "分":  # さんぶん and じゅうぶん are said too, of parts and of what is enough
        ways = ("", "half")
    made = {number + _changed(sound, way) for number in numbers for way in ways}
    # Of these both are said, as はちほん and はっぽん, よんふん and よんぷん.
    also = {PLAIN[n - 1] + sound} if n in (3, 4, 6, 8) and right != PLAIN[n - 1] + sound else set()
    others = sorted(made - {right} - also)
    if len(others) < 2:
        others += [reading(counter, near) for near in (n - 1, n + 1) if 0 < near <= len(PLAIN)]
    wrong = draw.sample(others, 2)
    return _read(draw, f"{KANJI[n - 1]}{counter}", right, wrong, counter)


def _irregular(draw: random.Random, counter: str, n: int) -> Question:
    sounds = IRREGULAR[counter].split()
    right = sounds[n - 1]
    # 一日 is いちにち where it is a span of time.
    made = {PLAIN[n - 1] + ending for ending in ENDINGS[counter]}
    made |= {sounds[n - 2], sounds[n % len(sounds)]}
    wrong = draw.sample(sorted(made - {right, "いちにち"}), 2)
    return _read(draw, f"{KANJI[n - 1]}{counter}", right, wrong, counter)


def _read(draw: random.Random, text: str, right: str, wrong: list[str], kind: str) -> Question:
    return question(
        draw, f"「{text}」の読み方は「", f"{right}」", [f"{w}」" for w in wrong], kind=kind
    )


def _fraction_read(draw: random.Random, down: int, up: int) -> Question:
    of, number = f"{PLAIN[down - 1]}ぶんの{PLAIN[up - 1]}", PLAIN[down - 1]
    wrong = [f"{number}ぷんの{PLAIN[up - 1]}", f"{number}ふんの{PLAIN[up - 1]}"]
    text = f"{KANJI[down - 1]}分の{KANJI[up - 1]}"
    return _read(draw, text, of, wrong, "fraction")


def _fraction_meant(draw: random.Random, down: int, up: int) -> Question:
    text = f"{KANJI[down - 1]}分の{KANJI[up - 1]}"
    wrong = {f"{down}/{up}", f"{up}/{down + 1}", f"{up}/{down * 10}"}
    return question(
        draw, f"「{text}」を分数で書くと", f"{up}/{down}", sorted(wrong), kind="fraction"
    )


def _compared(draw: random.Random, a: int, b: int, larger: bool) -> Question:
    """Which of 1/a and 1/b is the larger, or the smaller one, for a < b: so that the fraction that
    is met more often is not the right one by that."""
    said = [f"{KANJI[down - 1]}分の一" for down in (a, b)]
    order = draw.sample(said, 2)
    context = f"{order[0]}と{order[1]}では、{'大きい' if larger else '小さい'}ほうは"
    right, wrong = said if larger else said[::-1]
    return question(draw, context, right, [wrong], kind="comparison")


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
PARTS = {2: "half", 3: "third", 4: "quarter", 5: "fifth", 8: "eighth", 10: "tenth"}


def english(**_: Any) -> Any:
    return drawn("readings_en", _ask_english)


def _ask_english(draw: random.Random) -> Question:
    return draw.choice((_ordinal, _number, _fraction))(draw)


def ordinal(n: int) -> str:
    """11th and 112th, but 21st and 102nd."""
    return f"{n}{'th' if n % 100 in (11, 12, 13) else ORDINALS.get(n % 10, 'th')}"


def _ordinal(draw: random.Random) -> Question:
    n = draw.choice((draw.randint(1, 40), draw.randint(100, 130)))
    right = ordinal(n)
    wrong = [f"{n}{end}" for end in ("th", "st", "nd", "rd") if f"{n}{end}" != right]
    context = f"Number {n} in the line is the"
    return question(draw, context, f" {right}", [f" {w}" for w in wrong], kind="ordinal")


def words(n: int) -> str:
    """A number below 100 in words."""
    if n < 20:
        return ONES[n] if n < 10 else TEENS[n - 10]
    return TENS[n // 10 - 2] + (f"-{ONES[n % 10]}" if n % 10 else "")


def _number(draw: random.Random) -> Question:
    """Any of four numbers near each other is the right one, all of one word or all of two: what is
    short is not wrong more often."""
    n = draw.randint(11, 98)
    near = {n + sign * step for sign in (1, -1) for step in (1, 2, 10, 20, 30)}
    near.add(n % 10 * 10 + n // 10)
    alike = {w for w in near & set(range(10, 100)) - {n} if ("-" in words(w)) == ("-" in words(n))}
    four = [n, *draw.sample(sorted(alike), 3)]
    draw.shuffle(four)
    right, *wrong = four
    context = f"In words, {right} is"
    said = [f" {words(w)}" for w in wrong]
    return question(draw, context, f" {words(right)}", said, kind="number")


def _fraction(draw: random.Random) -> Question:
    down = draw.choice(sorted(PARTS))
    up = draw.randint(1, down - 1)
    name = PARTS[down] + ("s" if up > 1 else "")
    wrong = {f"{down}/{up}", f"{up}/{down + 1}", f"{up + 1}/{down}", f"{up}/{down * 10}"}
    context = f"As a fraction, {words(up)} {name} is"
    said = draw.sample(sorted(wrong), 3)
    return question(draw, context, f" {up}/{down}", [f" {w}" for w in said], kind="fraction")
