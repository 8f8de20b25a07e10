"""Minimal pairs of grammar: two sentences that differ in one place, and one of them is wrong.

The model is right if the correct sentence is more likely (BLiMP, Warstadt et al. 2020): agreement
in English, particles in Japanese. Of two forms each is right as often as the other is, so that a
model that likes one of them whatever stands around it is right in half of the pairs.
"""

from __future__ import annotations

import functools
import random
from typing import Any

from llm_jax.evals.tasks.bundled.questions import Make, Question, drawn, question

SINGULAR = [
    "teacher",
    "child",
    "dog",
    "friend",
    "doctor",
    "student",
    "neighbour",
    "farmer",
    "author",
    "king",
]
PLURAL = [
    "teachers",
    "children",
    "dogs",
    "friends",
    "doctors",
    "students",
    "neighbours",
    "farmers",
    "authors",
    "kings",
]
THINGS = ["house", "garden", "picture", "bridge", "letter", "window", "story", "road"]
VERBS = (("is", "are"), ("was", "were"), ("has", "have"))
ENDS = {
    "is": ("very old", "on the way", "quite new"),
    "was": ("very late", "well known", "near the sea"),
    "has": ("a long name", "no answer", "many secrets"),
}
ACTS = (("sings", "sing"), ("works", "work"), ("waits", "wait"), ("laughs", "laugh"))
SELVES = ("himself", "themselves")
MEN = ["boy", "man", "king", "brother", "uncle"]
DETERMINERS = (("these", True), ("this", False), ("many", True), ("every", False))
FORMS = (
    ("go", "going", "gone"),
    ("write", "writing", "written"),
    ("see", "seeing", "seen"),
    ("take", "taking", "taken"),
    ("speak", "speaking", "spoken"),
)
AUXILIARIES = (
    # (auxiliaries, the right form after them, the wrong one). "is written" and "is seen" are
    # sentences too, so that "going" is not set against "gone".
    (("will", "can"), 0, 1),
    (("is",), 1, 0),
    (("will", "can"), 0, 2),
    (("has",), 2, 0),
)


def english(**_: Any) -> Any:
    return drawn("grammar_en", ENGLISH, count=3 * len(ENGLISH), shots=0)


def _pair(draw: random.Random, right: str, wrong: str, kind: str) -> Question:
    return question(draw, "", right, [wrong], kind=kind)


def _simple(draw: random.Random, verbs: tuple[str, str], plural: bool) -> Question:
    """Subject and verb side by side."""
    noun = draw.choice(PLURAL if plural else SINGULAR)
    end = draw.choice(ENDS[verbs[0]])
    right, wrong = verbs[plural], verbs[not plural]
    return _pair(draw, f"The {noun} {right} {end}.", f"The {noun} {wrong} {end}.", "agreement")


def _attracted(draw: random.Random, plural: bool) -> Question:
    """A noun of the other number stands between subject and verb."""
    noun = draw.choice(PLURAL if plural else SINGULAR)
    between = draw.choice(THINGS) + ("" if plural else "s")
    acts = draw.choice(ACTS)
    place = draw.choice(("near", "behind", "beside"))
    right, wrong = acts[plural], acts[not plural]
    start = f"The {noun} {place} the {between}"
    return _pair(draw, f"{start} {right}.", f"{start} {wrong}.", "attraction")


def _quantity(draw: random.Random, word: str, plural: bool) -> Question:
    """Determiner and noun."""
    number = draw.randrange(len(SINGULAR))
    noun, other = (PLURAL, SINGULAR) if plural else (SINGULAR, PLURAL)
    verb = draw.choice(("We met", "They saw", "She knew"))
    return _pair(
        draw, f"{verb} {word} {noun[number]}.", f"{verb} {word} {other[number]}.", "determiner"
    )


def _reflexive(draw: random.Random, plural: bool) -> Question:
    noun = draw.choice(PLURAL if plural else MEN)
    right, wrong = SELVES[plural], SELVES[not plural]
    verb = draw.choice(("hurt", "saw", "asked", "helped"))
    return _pair(draw, f"The {noun} {verb} {right}.", f"The {noun} {verb} {wrong}.", "reflexive")


def _form(draw: random.Random, auxiliaries: tuple[str, ...], good: int, bad: int) -> Question:
    """The form of the verb after an auxiliary."""
    start = f"The {draw.choice(SINGULAR)} {draw.choice(auxiliaries)}"
    forms, end = draw.choice(FORMS), draw.choice(("again", "today", "at last"))
    return _pair(draw, f"{start} {forms[good]} {end}.", f"{start} {forms[bad]} {end}.", "form")


BOTH = (False, True)
ENGLISH: list[Make] = [
    # Twelve of each kind, in which each form is right as often as the other.
    *2 * [functools.partial(_simple, verbs=verbs, plural=p) for verbs in VERBS for p in BOTH],
    *6 * [functools.partial(_attracted, plural=plural) for plural in BOTH],
    *3 * [functools.partial(_quantity, word=word, plural=plural) for word, plural in DETERMINERS],
    *6 * [functools.partial(_reflexive, plural=plural) for plural in BOTH],
    *3
    * [
        functools.partial(_form, auxiliaries=after, good=good, bad=bad)
        for after, good, bad in AUXILIARIES
    ],
]

WHO = ["私", "彼", "妹", "先生", "友達", "父", "学生", "母", "田中さん", "子供"]
TALES = [("嘘", "ついた"), ("約束", "破った"), ("計画", "立てた"), ("風邪", "ひいた"),
         ("ため息", "ついた"), ("迷惑", "かけた")]  # fmt: skip
"""Nouns whose verb takes を and nothing else."""
PLACES = ["公園", "部屋", "庭", "図書館", "学校"]


def _each(nouns: list[str], verbs: list[str]) -> list[tuple[str, str]]:
    return [(noun, verb) for noun in nouns for verb in verbs]


PARTICLES = (
    # (the right particle, the wrong one, what stands around it). A particle is only wrong if the
    # sentence has no reading with it: one can read in a book (本で読んだ), take medicine with water
    # (水で飲んだ), or have one's mother scolded (母を叱られた). Two lines belong together: what is
    # right in the first is wrong in the second.
    ("を", "が", _each(["本", "手紙", "新聞", "雑誌"], ["読んだ", "買った", "忘れた"])),
    ("が", "を", _each(["お金", "時間", "自信", "余裕"], ["ある", "ない", "足りない"])),
    ("に", "を", _each(["電車", "バス", "船", "飛行機"], ["間に合った", "乗り遅れた"])),
    ("を", "に", _each(["本", "新聞", "雑誌"], ["読んだ", "買った"]) + TALES),
    ("に", "が", _each(["七時", "三時", "日曜日", "八月"], ["起きた", "出かけた", "帰った"])),
    ("が", "に", _each(["音楽", "数学", "猫", "果物"], ["好きだ", "得意だ", "苦手だ"])),
    ("で", "を", _each(PLACES, ["遊んだ", "働いた", "泣いた"])),
    ("を", "で", TALES),
    ("に", "で", _each(["先生", "警官", "母", "友達"], ["ほめられた", "叱られた", "頼まれた"])),
    ("で", "に", _each(PLACES, ["働いた", "勉強した", "練習した"])),
    ("で", "が", _each(PLACES, ["遊んだ", "待ち合わせた", "泣いた"])),
    ("が", "で", _each(["音楽", "数学", "猫", "果物"], ["好きだ", "得意だ", "苦手だ"])),
    ("と", "を", _each(["友達", "先生", "弟", "隣の人"], ["けんかした", "仲直りした", "再会した"])),
    ("を", "と", TALES),
)


def japanese(**_: Any) -> Any:
    made = [
        functools.partial(_particle, right=right, wrong=wrong, around=around)
        for right, wrong, around in PARTICLES
    ]
    return drawn("grammar_ja", made, count=14 * len(made), shots=0)


def _particle(
    draw: random.Random, right: str, wrong: str, around: list[tuple[str, str]]
) -> Question:
    (noun, verb), who = draw.choice(around), draw.choice(WHO)
    who = who if who != noun else "彼女"
    good, bad = (f"{who}は{noun}{particle}{verb}。" for particle in (right, wrong))
    return _pair(draw, good, bad, right)
