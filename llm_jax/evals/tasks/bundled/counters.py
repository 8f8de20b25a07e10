"""Counters and readings in Japanese: how numbers sound with what they count, what fractions mean.

The number changes the counter's first sound and the other way round: 二本 is にほん, 三本 さんぼん,
一本 いっぽん. Fractions read 分 otherwise than minutes do: 三分の一 is さんぶんのいち, 三分間
さんぷんかん. What is wrong with one number or counter is right with another: 十日 is とおか and
not じゅうにち, 十二日 じゅうににち and not じゅうふつか. So questions come in pairs, and who likes
a sound whatever is asked is right in one of the two.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from typing import Any

from llm_jax.evals.tasks.bundled.questions import Question, dealt, question, splits

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
    "枚": ("まい", (), (), ()),
    "台": ("だい", (), (), ()),
    "番": ("ばん", (), (), ()),
    "度": ("ど", (), (), ()),
    "名": ("めい", (), (), ()),
    "倍": ("ばい", (), (), ()),
}
IRREGULAR = {
    "人": "ひとり ふたり さんにん よにん ごにん ろくにん ななにん はちにん きゅうにん じゅうにん",
    "つ": "ひとつ ふたつ みっつ よっつ いつつ むっつ ななつ やっつ ここのつ",
}
DAYS = ["ついたち", "ふつか", "みっか", "よっか", "いつか",
        "むいか", "なのか", "ようか", "ここのか", "とおか"]  # fmt: skip
LATER_DAYS = (12, 13, 15, 16, 18, 22, 23, 25, 26)
"""Days whose readings are those of the numbers, for nine whose are not."""
FRACTIONS = ((2, 1), (3, 1), (3, 2), (4, 1), (4, 3), (5, 1), (5, 2), (8, 1), (8, 3), (10, 1),
             (10, 3))  # fmt: skip
"""(denominator, numerator)"""
MINUTES = (3, 4, 6, 8, 10, 13, 14, 16, 18, 20, 30)
Pair = tuple[Question, ...]
SHOTS = 20


def japanese(**_: Any) -> Any:
    draw = random.Random("counters_ja")
    pairs = [*_sounds(draw), *_numbers(draw), *_days(draw), *_parts(draw)]
    pairs += [(one,) for one in (*_irregular(draw), *_fractions_meant(draw), *_compared(draw))]
    draw.shuffle(pairs)
    made = dealt("counters_ja", [*itertools.chain(*pairs)])
    return splits(made[SHOTS:], made[:SHOTS])


def kanji(n: int) -> str:
    """A number below 100: 20 is 二十, 21 二十一."""
    tens, ones = divmod(n, 10)
    head = "" if not tens else "十" if tens == 1 else f"{KANJI[tens - 1]}十"
    return head + (KANJI[ones - 1] if ones else "")


def plain(n: int) -> str:
    """A number below 100 by itself."""
    return _head(n) + PLAIN[_last(n) - 1]


def short(n: int) -> str:
    """A number below 100 that ends in 1, 6, 8 or 10, without its last sound."""
    return _head(n) + SHORT[_last(n)]


def _last(n: int) -> int:
    """The word that a number ends in: of 20 it is 10."""
    return n % 10 or 10


def _head(n: int) -> str:
    """What stands before that word: に of 20, にじゅう of 21."""
    tens = (n - _last(n)) // 10 + (n % 10 == 0)
    said = PLAIN[tens - 1] if tens > 1 else ""
    return said if n % 10 == 0 else said + ("じゅう" if tens else "")


def reading(counter: str, n: int) -> str:
    """The usual reading of 1 to 99 with a regular counter."""
    sound, shortened, voiced, half = REGULAR[counter]
    last = _last(n)
    number = short(n) if last in shortened else plain(n)
    return number + _changed(sound, "half" if last in half else "voiced" if last in voiced else "")


def _changed(sound: str, how: str) -> str:
    first, rest = sound[0], sound[1:]
    if how == "half":
        return H_ROW[first][1] + rest
    if how == "voiced":
        return (H_ROW[first][0] if first in H_ROW else VOICED[first]) + rest
    return sound


def _read(draw: random.Random, text: str, right: str, wrong: Sequence[str], kind: str) -> Question:
    return question(
        draw, f"「{text}」の読み方は「", f"{right}」", [f"{w}」" for w in wrong], kind=kind
    )


def _sound(draw: random.Random, counter: str, n: int, way: str) -> Question:
    """With the counter's own sound, or in another way, as the wrong one."""
    right = reading(counter, n)
    number = right[: -len(REGULAR[counter][0])]
    wrong = number + _changed(REGULAR[counter][0], way)
    return _read(draw, f"{kanji(n)}{counter}", right, [wrong], counter)


def _sounds(draw: random.Random) -> Iterator[Pair]:
    """The first sound of the counter: half voiced or voiced against its own."""
    for counter in ("本", "匹", "杯", "分"):
        for half, own in zip((1, 6, 8, 10), draw.sample((2, 5, 7, 9), 4), strict=True):
            yield _sound(draw, counter, half, ""), _sound(draw, counter, own, "half")
    for counter in ("本", "匹", "杯"):
        for voiced, own in ((3, 2), (13, 12), (23, 25)):
            yield _sound(draw, counter, voiced, ""), _sound(draw, counter, own, "voiced")


def _numbers(draw: random.Random) -> Iterator[Pair]:
    """The last sound of the number, which some counters take away."""
    for shortening, other in zip("個冊歳階回軒", "枚台番度名倍", strict=True):
        for n in (1, 10, 11, 20):
            pair = []
            for counter in (shortening, other):
                right, sound = reading(counter, n), REGULAR[counter][0]
                (wrong,) = {short(n) + sound, plain(n) + sound} - {right}
                pair.append(_read(draw, f"{kanji(n)}{counter}", right, [wrong], counter))
            yield tuple(pair)


def _days(draw: random.Random) -> Iterator[Pair]:
    """Days up to the tenth have readings of their own, later ones mostly those of the numbers. The
    first is left out: 一日 is いちにち where it is a span of time."""
    for n, later in zip(range(2, 11), LATER_DAYS, strict=True):
        own = _read(draw, f"{kanji(n)}日", DAYS[n - 1], [f"{plain(n)}にち"], "日")
        wrong = _head(later) + DAYS[_last(later) - 1]
        yield own, _read(draw, f"{kanji(later)}日", f"{plain(later)}にち", [wrong], "日")


def _parts(draw: random.Random) -> Iterator[Pair]:
    """分 of a fraction and 分 of minutes."""
    for (down, up), n in zip(FRACTIONS, MINUTES, strict=True):
        text, rest = f"{KANJI[down - 1]}分の{KANJI[up - 1]}", f"の{PLAIN[up - 1]}"
        part = [f"{PLAIN[down - 1]}{sound}{rest}" for sound in ("ぶん", "ぷん")]
        minutes = reading("分", n)[: -len("ふん")]
        time = [f"{minutes}{sound}かん" for sound in ("ぷん", "ぶん")]
        yield (
            _read(draw, text, part[0], part[1:], "fraction"),
            _read(draw, f"{kanji(n)}分間", time[0], time[1:], "分"),
        )


def _irregular(draw: random.Random) -> Iterator[Question]:
    """The others are readings of other numbers, each of which is right elsewhere."""
    for counter, sounds in IRREGULAR.items():
        every = sounds.split()
        for n, right in enumerate(every):
            others = [every[(n + step) % len(every)] for step in (1, 2)]
            yield _read(draw, f"{KANJI[n]}{counter}", right, others, counter)


def _fractions_meant(draw: random.Random) -> Iterator[Question]:
    """Of a/b, b/a, a/c and c/a any is the right one."""
    every = draw.sample([*itertools.permutations(range(2, 11), 2)], 22)
    for up, down in every:
        third = draw.choice([n for n in range(2, 11) if n not in (up, down)])
        shared = draw.choice((up, down))
        wrong = [f"{down}/{up}", f"{shared}/{third}", f"{third}/{shared}"]
        context = f"「{KANJI[down - 1]}分の{KANJI[up - 1]}」を分数で書くと"
        yield question(draw, context, f"{up}/{down}", wrong, kind="fraction")


def _compared(draw: random.Random) -> Iterator[Question]:
    """Which of 1/a and 1/b is larger, or smaller, each in half of the questions."""
    every = [*itertools.combinations(range(2, 11), 2)]
    for place, (a, b) in enumerate(draw.sample(every, len(every))):
        said = [f"{KANJI[down - 1]}分の一" for down in (a, b)]
        order = draw.sample(said, 2)
        asked, right, wrong = ("大きい", *said) if place % 2 else ("小さい", *said[::-1])
        context = f"{order[0]}と{order[1]}では、{asked}ほうは"
        yield question(draw, context, right, [wrong], kind="comparison")
