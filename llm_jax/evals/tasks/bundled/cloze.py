"""Cloze: a word of held-out text that its passage has said before (LAMBADA, Paperno et al. 2016).

The text is the run's validation split, or files that are given. A word is a run of letters, of
kanji or of katakana, so that Japanese, which has no spaces, is cut too. The wrong choices are words
of the same kind and about the same length from the same passage.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from llm_jax.config import UserError
from llm_jax.evals.tasks.bundled.questions import Question, dealt, question, splits

PASSAGE = 300
"""Characters before the word."""
COUNT, SHOTS, PER_TEXT = 200, 10, 10
KINDS = (r"[A-Za-z]{4,}", r"[\u4e00-\u9fff]{2,}", r"[\u30a1-\u30fa\u30fc]{3,}")
WORDS = re.compile("|".join(f"({kind})" for kind in KINDS))
TOKENS = 1_000_000
"""Of each validation split that are read, at most."""


def questions(held_out: dict[str, Any] | None = None, **_: Any) -> Any:
    """
    Args:
      held_out: `texts`, paths of text files, or `datasets`, folders of built datasets.
    """
    given = held_out or {}
    if not (given.get("texts") or given.get("datasets")):
        raise UserError("Task 'cloze' needs held-out text: give --text, or a run with a dataset.")
    draw = random.Random("cloze")
    texts = [*_texts(given)]
    draw.shuffle(texts)
    found: list[Question] = []
    for text in texts:
        found += _of_text(draw, text)
        if len(found) >= COUNT + SHOTS:
            break
    if len(found) < 2:
        raise UserError(
            "Task 'cloze' finds fewer than two questions: words of the held-out text that come "
            f"twice within {PASSAGE} characters, with three others of their kind. Give more --text."
        )
    spare = min(SHOTS, max(len(found) // 5, 1))
    found = dealt("cloze", found)
    return splits(found[spare : COUNT + spare], found[:spare])


def _texts(given: dict[str, Any]) -> Iterator[str]:
    from llm_jax.data.dataset import TokenDataset
    from llm_jax.data.sources import FileSource, LeftOut

    for path in given.get("texts") or ():
        for document in FileSource(path).documents(LeftOut()):
            yield document.text
    if given.get("texts"):
        return
    for folder in given.get("datasets") or ():
        yield from _validation(TokenDataset.open(folder))


def _validation(dataset: Any) -> Iterable[str]:
    """The documents of a validation split, of its first tokens."""
    tokenizer = dataset.tokenizer
    count = min(dataset.num_tokens("validation"), TOKENS)
    if not count:
        return
    tokens = dataset.read("validation", np.array([0]), count)[0]
    marks = set(tokenizer.marks)
    document: list[int] = []
    for token in tokens.tolist():
        if token in marks:
            if document:
                yield tokenizer.decode(document)
            document = []
        else:
            document.append(token)


def _of_text(draw: random.Random, text: str) -> list[Question]:
    found: list[Question] = []
    end = 0
    for match in WORDS.finditer(text):
        if len(found) == PER_TEXT:
            break
        start, kind = match.start(), match.lastindex
        if start < end + PASSAGE:  # passages do not overlap
            continue
        passage = text[start - PASSAGE : start]
        word = match.group()
        seen = {m.group() for m in WORDS.finditer(passage) if m.lastindex == kind}
        others = sorted(
            (w for w in seen - {word} if w.lower() != word.lower()),
            key=lambda w: (abs(len(w) - len(word)), w),
        )[:6]
        if word not in seen or len(others) < 3:
            continue
        end = start
        # A space belongs to the word that follows it, as tokenizers have it.
        space = " " if passage.endswith(" ") else ""
        wrong = [space + w for w in draw.sample(others, 3)]
        found.append(question(draw, passage.removesuffix(" ").lstrip(), space + word, wrong))
    return found
