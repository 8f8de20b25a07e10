"""Minimal pairs of grammar: two sentences that differ in one place, and one of them is wrong.

The model is right if the correct sentence is more likely (BLiMP, Warstadt et al. 2020): agreement
in English, particles in Japanese.
"""

from __future__ import annotations

import random
from typing import Any

from llm_jax.evals.tasks.bundled.questions import Question, drawn, question

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
SELVES = (("himself", "themselves"),)


def english(**_: Any) -> Any:
    return drawn("grammar_en", lambda draw: draw.choice(ENGLISH)(draw), shots=0)


def _pair(draw: random.Random, right: str, wrong: str, kind: str) -> Question:
    return question(draw, "", right, [wrong], kind=kind)


def _simple(draw: random.Random) -> Question:
    """Subject and verb side by side."""
    plural, number = draw.choice((True, False)), draw.randrange(len(SINGULAR))
    noun = (PLURAL if plural else SINGULAR)[number]
    verbs = draw.choice(VERBS)
    end = draw.choice(ENDS[verbs[0]])
    right, wrong = verbs[plural], verbs[not plural]
    return _pair(draw, f"The {noun} {right} {end}.", f"The {noun} {wrong} {end}.", "agreement")


def _attracted(draw: random.Random) -> Question:
    """A noun of the other number stands between subject and verb."""
    plural, number = draw.choice((True, False)), draw.randrange(len(SINGULAR))
    noun = (PLURAL if plural else SINGULAR)[number]
    between = draw.choice(THINGS) + ("" if plural else "s")
    acts = draw.choice(ACTS)
    place = draw.choice(("near", "behind", "beside"))
    right, wrong = acts[plural], acts[not plural]
    start = f"The {noun} {place} the {between}"
    return _pair(draw, f"{start} {right}.", f"{start} {wrong}.", "attraction")


def _quantity(draw: random.Random) -> Question:
    """Determiner and noun."""
    number = draw.randrange(len(SINGULAR))
    word, plural = draw.choice((("these", True), ("this", False), ("many", True), ("every", False)))
    noun, other = (PLURAL, SINGULAR) if plural else (SINGULAR, PLURAL)
    verb = draw.choice(("We met", "They saw", "She knew"))
    return _pair(
        draw, f"{verb} {word} {noun[number]}.", f"{verb} {word} {other[number]}.", "determiner"
    )


def _reflexive(draw: random.Random) -> Question:
    number = draw.randrange(len(SINGULAR))
    plural = draw.choice((True, False))
    noun = (PLURAL if plural else ("boy", "man", "king", "brother", "uncle") * 2)[number]
    right, wrong = SELVES[0][plural], SELVES[0][not plural]
    verb = draw.choice(("hurt", "saw", "asked", "helped"))
    return _pair(draw, f"The {noun} {verb} {right}.", f"The {noun} {verb} {wrong}.", "reflexive")


def _form(draw: random.Random) -> Question:
    """The form of the verb after an auxiliary."""
    noun = draw.choice(SINGULAR)
    auxiliary, good = draw.choice((("has", 2), ("will", 0), ("is", 1), ("can", 0)))
    forms = draw.choice(
        (
            ("go", "going", "gone"),
            ("write", "writing", "written"),
            ("see", "seeing", "seen"),
            ("take", "taking", "taken"),
            ("speak", "speaking", "spoken"),
        )
    )
    # "is written" and "is seen" are sentences too.
    bad = 0 if auxiliary == "is" else draw.choice([n for n in range(3) if n != good])
    end = draw.choice(("again", "today", "at last"))
    start = f"The {noun} {auxiliary}"
    return _pair(draw, f"{start} {forms[good]} {end}.", f"{start} {forms[bad]} {end}.", "form")


ENGLISH = (_simple, _attracted, _quantity, _reflexive, _form)

WHO = ["私", "彼", "妹", "先生", "友達", "父", "学生", "母", "田中さん", "子供"]
PARTICLES = (
    # (what stands before, the right particle, wrong ones, what may follow). A particle is only
    # wrong if the sentence has no reading with it: one can read in a book (本で読んだ), take
    # medicine with water (水で飲んだ), or have one's mother scolded (母を叱られた).
    (["本", "手紙", "新聞", "雑誌"], "を", "が", ["読んだ", "買った", "見せた", "忘れた"]),
    (["水", "お茶", "牛乳", "薬"], "を", "が", ["飲んだ", "買った", "こぼした"]),
    (["学校", "東京", "図書館", "海", "病院"], "に", "をが", ["着いた", "向かった"]),
    (
        ["公園", "部屋", "庭", "図書館", "学校"],
        "で",
        "をが",
        ["遊んだ", "働いた", "待ち合わせた", "泣いた"],
    ),
    (["電車", "バス", "自転車", "車", "船"], "で", "を", ["来た", "帰った", "通勤している"]),
    (["友達", "先生", "弟", "隣の人"], "と", "を", ["相談した", "話し合った", "結婚した"]),
    (["電車", "バス", "船", "飛行機"], "に", "を", ["間に合った", "乗り遅れた"]),
    (["七時", "三時", "日曜日", "八月"], "に", "をが", ["起きた", "出かけた", "帰った"]),
    (["音楽", "数学", "猫", "果物"], "が", "にで", ["好きだ", "得意だ", "苦手だ"]),
    (["先生", "警官", "母", "友達"], "に", "へで", ["ほめられた", "叱られた", "頼まれた"]),
    (["医者", "教師", "大人", "社長"], "に", "をで", ["なった", "なりたい", "なるだろう"]),
)


def japanese(**_: Any) -> Any:
    return drawn("grammar_ja", _particle, shots=0)


def _particle(draw: random.Random) -> Question:
    before, right, wrong, after = draw.choice(PARTICLES)
    noun, verb, who = draw.choice(before), draw.choice(after), draw.choice(WHO)
    who = who if who != noun else "彼女"

    def sentence(particle: str) -> str:
        return f"{who}は{noun}{particle}{verb}。"

    return _pair(draw, sentence(right), sentence(draw.choice(wrong)), right)
