"""Whether a tokenizer gives back the text that it encodes, tested on documents of each source.

Byte counts cannot tell: a tokenizer that turns every newline into a space does not change them. So
documents are encoded, decoded and compared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from llm_jax.data.corpus import Corpus
from llm_jax.data.same_text import difference
from llm_jax.data.sources import Source
from llm_jax.data.tokenizers import Tokenizer

SAMPLE_BYTES = 16_000_000
"""Text to compare, shared by all sources. Each source's first, last and longest documents are
compared whatever their size."""
MOST = 10
"""Most characters that a report names."""


@dataclass
class Comparison:
    """Documents of one source, before and after encoding and decoding.

    Attributes:
      lost, added: character → how many are missing after decoding, and how many are new.
      example: the text around the first difference: what it `was`, and what it `became`.
    """

    source: str
    documents: int
    compared: int = 0
    changed: int = 0
    lost: Counter[str] = field(default_factory=Counter)
    added: Counter[str] = field(default_factory=Counter)
    example: dict[str, str] | None = None

    def see(self, other: dict[str, Any] | None) -> None:
        """Counts a document, by its `difference`."""
        self.compared += 1
        if other is None:
            return
        self.changed += 1
        self.lost += Counter(other["lost"])
        self.added += Counter(other["added"])
        if self.example is None:
            self.example = other["example"]

    def report(self) -> dict[str, Any]:
        """As dataset.json has it."""
        return {
            "source": self.source,
            "documents": self.documents,
            "compared": self.compared,
            "changed": self.changed,
            "lost": dict(self.lost.most_common(MOST)),
            "lost_characters": self.lost.total(),
            "added": dict(self.added.most_common(MOST)),
            "added_characters": self.added.total(),
            "example": self.example,
        }


def compare(
    source: str, texts: Iterable[str], tokenizer: Tokenizer, documents: int | None = None
) -> Comparison:
    """Compares `texts`, which are all documents, or a sample of this number of `documents`."""
    made = Comparison(source, documents or 0)
    for text in texts:
        (ids,) = tokenizer.encode_documents([text])
        made.see(difference(text, tokenizer.decode(ids.tolist())))
    if documents is None:
        made.documents = made.compared
    return made


@dataclass(frozen=True)
class Chosen:
    """Documents of a source that are compared.

    Attributes:
      documents: of the source, in all.
      numbers: of those to compare, in the order in which they are counted.
    """

    source: str
    documents: int
    numbers: list[int]


def choose_documents(corpus: Corpus, sources: Sequence[Source]) -> list[Chosen]:
    """A sample of each source that has documents. It depends on the texts alone."""
    source_of = corpus.source_numbers
    by_source = np.argsort(source_of, kind="stable")
    ends = np.searchsorted(source_of[by_source], np.arange(len(sources) + 1))
    sizes, rank = corpus.sizes, np.empty(len(corpus), np.int64)
    rank[corpus.shuffled(0)] = np.arange(len(corpus))
    chosen = []
    for number, source in enumerate(sources):
        documents = by_source[ends[number] : ends[number + 1]]
        if len(documents):
            drawn = documents[np.argsort(rank[documents])]
            sample = _sample(documents, drawn, sizes, SAMPLE_BYTES // len(sources))
            chosen.append(Chosen(source.name, len(documents), list(map(int, sample))))
    return chosen


def reports(
    chosen: Iterable[Chosen], changed: Mapping[int, dict[str, Any]]
) -> list[dict[str, Any]]:
    """The report of each source, from the `difference` of each document that changed."""
    made = []
    for one in chosen:
        comparison = Comparison(one.source, one.documents)
        for number in one.numbers:
            comparison.see(changed.get(number))
        made.append(comparison.report())
    return made


def _sample(
    documents: np.ndarray, drawn: np.ndarray, sizes: np.ndarray, most: int
) -> Iterator[int]:
    """The first, the last and the longest of `documents`, then others in the order `drawn`, as long
    as all together have at most `most` bytes."""
    always = dict.fromkeys([documents[0], documents[-1], documents[sizes[documents].argmax()]])
    yield from always
    left = most - sum(int(sizes[i]) for i in always)
    for i in drawn:
        if i in always:
            continue
        left -= int(sizes[i])
        if left < 0:
            return
        yield i


def sentences(reports: Iterable[dict[str, Any]]) -> list[str]:
    """The reports as lines for a person; none if every document is decoded as it was."""
    lines = []
    for one in reports:
        if not one["changed"]:
            continue
        lines.append(
            f"the tokenizer loses text: {one['changed']:,} of the {one['compared']:,} documents of "
            f"{one['source']} that were compared changed when encoded and decoded"
        )
        if one["lost"] or one["added"]:
            lines.append(
                f"  lost: {_characters(one['lost'], one['lost_characters'])}; "
                f"added: {_characters(one['added'], one['added_characters'])}"
            )
        lines.append(f"  {one['example']['was']!r} became {one['example']['became']!r}")
    return lines


def _characters(counts: dict[str, int], total: int) -> str:
    named = [f"{character!r} {n:,}×" for character, n in counts.items()]
    others = total - sum(counts.values())
    return ", ".join([*named, f"others {others:,}×"] if others else named) or "none"
