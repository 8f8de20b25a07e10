"""Examples as rows of ids with targets, of one fixed length.

A row is `[CLS] first [SEP]`, or `[CLS] first [SEP] second [SEP]`, with the tokenizer's own marks of
a document. Words and answers are found in the text by the characters that each token stands for.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from llm_jax.config.heads import Head
from llm_jax.data.batch import IGNORED, Rows
from llm_jax.data.labelled.records import Example
from llm_jax.data.sources.left_out import Unusable
from llm_jax.data.tokenizers import Tokenizer

NO_ANSWER = 0
"""Place of begin and end if the context has no answer: the first token."""


@dataclass
class Encoded:
    """An example as ids, without marks and not yet cut.

    Attributes:
      parts: ids of each text.
      spans: (first, end) of the characters of each token of the last text.
      target: as of `Example`; of `tag` and `answer` in tokens of the last text: {token: tag}, or
        (first, last).
    """

    parts: list[list[int]]
    spans: list[tuple[int, int]]
    target: Any
    was_cut: bool = False
    lost_words: int = 0
    apart: bool = False
    """Each text has a row of its own (`embed`)."""
    words: tuple[int, ...] = field(default=())
    """Of `tag`: the first token of each word, -1 for one that shares it with the word before."""

    @property
    def size(self) -> int:
        """Tokens of its longest row, with their marks."""
        if self.apart:
            return max(map(len, self.parts)) + 2
        return sum(map(len, self.parts)) + len(self.parts) + 1


def encode(example: Example, kind: Head, tokenizer: Tokenizer) -> Encoded:
    """The ids of an example; raises `Unusable` if a text has none."""
    if kind == "tag":
        return _tagged(example, tokenizer)
    ids, spans = zip(*(tokenizer.encode_spans(text) for text in example.texts), strict=True)
    if not all(ids):
        raise Unusable("text without tokens")
    made = Encoded(list(ids), spans[-1], example.target, apart=kind == "embed")
    if kind == "answer" and example.target is not None:
        begin, end = example.target
        made.target = _tokens_of(begin, end, made.spans)
    return made


def joined(words: Sequence[str]) -> tuple[str, list[int]]:
    """The text of words, and where each begins: with spaces between them, but none between two
    characters of East Asian width."""
    text, starts = "", list[int]()
    for word in words:
        wide = text and _is_wide(text[-1]) and _is_wide(word[0])
        text += "" if not text or wide else " "
        starts.append(len(text))
        text += word
    return text, starts


def _is_wide(character: str) -> bool:
    return unicodedata.east_asian_width(character) in "WF"


def _tagged(example: Example, tokenizer: Tokenizer) -> Encoded:
    text, starts = joined(example.texts)
    ids, spans = tokenizer.encode_spans(text)
    if not ids:
        raise Unusable("text without tokens")
    places, taken = list[int](), -1
    for start, word in zip(starts, example.texts, strict=True):
        token = next(
            (i for i, (_, end) in enumerate(spans) if i > taken and end > start), len(spans)
        )
        own = token < len(spans) and spans[token][0] < start + len(word)
        places.append(token if own else -1)
        taken = token if own else taken
    pairs = zip(places, example.target, strict=True)
    tags = {place: tag for place, tag in pairs if place >= 0}
    lost = places.count(-1)
    return Encoded([ids], spans, tags, lost_words=lost, words=tuple(places))


def _tokens_of(start: int, end: int, spans: list[tuple[int, int]]) -> tuple[int, int]:
    inside = [i for i, (a, b) in enumerate(spans) if a < end and b > start]
    if not inside:
        raise Unusable("answer without tokens")
    return inside[0], inside[-1]


def cut(made: Encoded, kind: Head, length: int) -> Encoded:
    """`made`, cut so that it has at most `length` tokens with its marks.

    Of an answer's example the context is cut at its end, of others the longest text.

    Raises:
      Unusable: nothing of a text would be left, or not the answer.
    """
    excess = made.size - length
    if excess <= 0:
        return made
    made.was_cut = True
    if made.apart:
        made.parts = [part[: length - 2] for part in made.parts]
        return made
    sizes = [len(part) for part in made.parts]
    for _ in range(excess):
        longest = -1 if kind == "answer" else sizes.index(max(sizes))
        if sizes[longest] < 2:
            raise Unusable("question longer than the row" if kind == "answer" else "too long")
        sizes[longest] -= 1
    made.parts = [part[:size] for part, size in zip(made.parts, sizes, strict=True)]
    left = len(made.parts[-1])
    if kind == "answer" and made.target is not None and made.target[1] >= left:
        raise Unusable("answer beyond the row")
    if kind == "tag":
        made.lost_words += sum(place >= left for place in made.target)
        made.target = {place: tag for place, tag in made.target.items() if place < left}
        if not made.target:
            raise Unusable("no word with a tag left")
    return made


def fill(
    examples: Sequence[Encoded],
    kind: Head,
    length: int,
    labels: Sequence[str],
    tokenizer: Tokenizer,
) -> Rows:
    """The stored arrays of examples that are cut, n rows each.

    Returns:
      `inputs` (n, length) int32; `size` (n,), its tokens; `second` (n,), where the second text
      begins, `size` if there is none; `targets`. Of `embed`, each text has a row: `inputs`, `size`
      and `other_inputs`, `other_size`; and `scores` (n,) float32, NaN where there is none.
    """
    n, number = len(examples), {name: i for i, name in enumerate(labels)}
    pad = tokenizer.pad_id if tokenizer.pad_id >= 0 else tokenizer.eos_id
    shapes = {"tag": (n, length), "answer": (n, 2)}
    targets = np.full(shapes.get(kind, (n,)), IGNORED, np.int32)
    rows: Rows = {"targets": targets}
    for name in ("", "other_") if kind == "embed" else ("",):
        rows[f"{name}inputs"] = np.full((n, length), pad, np.int32)
        rows[f"{name}size"] = np.zeros(n, np.int32)
    if kind == "embed":
        targets[:] = 0
        scores = [np.nan if one.target is None else one.target for one in examples]
        rows["scores"] = np.array(scores, np.float32)
    else:
        rows["second"] = np.zeros(n, np.int32)
    for i, one in enumerate(examples):
        if kind == "embed":
            for name, part in zip(("", "other_"), one.parts, strict=True):
                _put(rows, name, i, [part], tokenizer)
            continue
        starts = _put(rows, "", i, one.parts, tokenizer)
        rows["second"][i] = starts[1] if len(starts) > 1 else rows["size"][i]
        if kind == "classify":
            targets[i] = number.get(one.target, IGNORED)
        elif kind == "tag":
            for place, tag in one.target.items():
                targets[i, starts[0] + place] = number.get(tag, IGNORED)
        else:
            shift, target = starts[1], one.target
            targets[i] = NO_ANSWER if target is None else [shift + place for place in target]
    return rows


def _put(
    rows: Rows, name: str, i: int, parts: Sequence[Sequence[int]], tokenizer: Tokenizer
) -> list[int]:
    """Writes one row; where each part begins."""
    ids, starts = [tokenizer.bos_id], list[int]()
    for part in parts:
        starts.append(len(ids))
        ids += [*part, tokenizer.eos_id]
    rows[f"{name}inputs"][i, : len(ids)] = ids
    rows[f"{name}size"][i] = len(ids)
    return starts
