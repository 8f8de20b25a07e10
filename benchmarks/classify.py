"""An encoder fine-tuned on a made-up classification, beside a bag of words.

  python benchmarks/classify.py --out /tmp/classify --pretrain 600 --steps 600

Each sentence says who beat whom, in English or Japanese, and its label is the winner's team. One
player of each team plays, in either order, and verbs and negations turn the result around. So each
bag of words has both labels equally often, and a classifier that sees no order can only guess.

It trains a tokenizer and a small BERT on the unlabelled sentences (masked tokens), fine-tunes it,
and again from random weights; and it fits a logistic regression on counts of words and pairs of
neighbouring words (scikit-learn).
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

TEAMS = {
    "red": (("Ann", "Bob", "Cid", "Dan"), ("アキ", "ケン", "ユミ", "リク")),
    "blue": (("Pat", "Quin", "Ray", "Sam"), ("ソラ", "マコ", "ノア", "ヒデ")),
}
TEMPLATES = (
    (
        ("{when} {a} beat {b}.", True),
        ("{when} {a} did not beat {b}.", False),
        ("{when} {a} lost to {b}.", False),
        ("{when} {a} did not lose to {b}.", True),
    ),
    (
        ("{when}{a}は{b}に勝った。", True),
        ("{when}{a}は{b}に勝てなかった。", False),
        ("{when}{a}は{b}に負けた。", False),
        ("{when}{a}は{b}に負けなかった。", True),
    ),
)
"""By language: a sentence, and whether the first player won."""
WHEN = (
    ("Today", "Yesterday", "On Sunday", "In the end", "Again"),
    ("今日", "昨日", "日曜に", "最後に", "また"),
)


def sentences() -> list[dict[str, str]]:
    """All sentences with their labels, in a random order of one seed."""
    found = list(_all())
    random.Random(0).shuffle(found)
    return found


def _all() -> Iterator[dict[str, str]]:
    for language, templates in enumerate(TEMPLATES):
        reds, blues = TEAMS["red"][language], TEAMS["blue"][language]
        for red, blue, when, (words, first_wins) in itertools.product(
            reds, blues, WHEN[language], templates
        ):
            for a, b, first in ((red, blue, "red"), (blue, red, "blue")):
                other = "blue" if first == "red" else "red"
                label = first if first_wins else other
                yield {"text": words.format(when=when, a=a, b=b), "label": label}


def bag_of_words(train: list[dict[str, str]], held_out: list[dict[str, str]], n: int = 1) -> float:
    """Accuracy of a logistic regression on counts of up to `n` neighbouring words. Words are those
    of the Latin script, and single characters of others."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression

    counts = CountVectorizer(token_pattern=r"[A-Za-z]+|[^\sA-Za-z]", ngram_range=(1, n))
    x = counts.fit_transform(one["text"] for one in train)
    model = LogisticRegression(max_iter=1000).fit(x, [one["label"] for one in train])
    y = [one["label"] for one in held_out]
    return float(model.score(counts.transform(one["text"] for one in held_out), y))
