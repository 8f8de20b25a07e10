"""Near-duplicates by MinHash and locality-sensitive hashing (Broder 1997; Leskovec et al. 2020,
chapter 3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from llm_jax.config import require
from llm_jax.data.curate.draft import Check, Draft
from llm_jax.data.curate.hashing import token_hashes, windows
from llm_jax.data.curate.step import Checks, JointStep
from llm_jax.data.permutation import mix, seed_key

MOST = 10_000
"""Permutations of a signature."""
CHUNK = 1 << 20
"""Hashes of shingles that are permuted at once, to bound the memory of a long document."""


@dataclass(frozen=True, kw_only=True)
class NearDuplicates(JointStep):
    """Keeps the first of documents that resemble each other, within and across sources.

    Two documents whose sets of shingles have the Jaccard similarity s are found with probability
    1 - (1 - s^r)^b for b bands of r rows. FineWeb's 14 x 8 finds half of the pairs at 0.68, and 92%
    at 0.8. What resembles a document that resembles a third belongs to all three.

    Attributes:
      shingle: tokens of a shingle; a token is a word, or one character of Chinese or Japanese.
    """

    kind: Literal["near_duplicates"] = "near_duplicates"
    shingle: int = 5
    bands: int = 14
    rows_per_band: int = 8
    seed: int = 1

    def __post_init__(self) -> None:
        for name in ("shingle", "bands", "rows_per_band"):
            value = getattr(self, name)
            require(0 < value <= 1000, f"near_duplicates.{name} is {value}: give 1 to 1,000.")
        count = self.bands * self.rows_per_band
        require(
            count <= MOST,
            f"near_duplicates.bands x rows_per_band is {count:,}: it must be at most {MOST:,}.",
        )

    @property
    def columns(self) -> int:  # type: ignore[override]
        return self.bands

    def rows(self, draft: Draft) -> np.ndarray:
        signature = self.signature(shingles(draft.text, self.shingle))
        if signature is None:  # no token: like no other
            return mix(np.arange(self.bands, dtype=np.uint64) + mix(seed_key(draft.number)))[None]
        lanes = signature.reshape(self.bands, self.rows_per_band)
        keys = np.arange(self.bands, dtype=np.uint64)
        for row in range(self.rows_per_band):
            keys = mix(keys ^ lanes[:, row])
        return keys[None]

    def signature(self, hashes: np.ndarray) -> np.ndarray | None:
        """(bands x rows_per_band,) uint64: the least of 32 bits of each permutation of `hashes`."""
        if not len(hashes):
            return None
        count = self.bands * self.rows_per_band
        factors = mix(np.arange(1, count + 1, dtype=np.uint64) + mix(seed_key(self.seed)))
        least = np.full(count, np.iinfo(np.uint64).max, np.uint64)
        step = max(CHUNK // count, 1)
        for start in range(0, len(hashes), step):
            part = hashes[start : start + step]
            values = (factors | np.uint64(1))[:, None] * (part ^ (factors[:, None] >> np.uint64(7)))
            least = np.minimum(least, (values >> np.uint64(32)).min(axis=1))
        return least

    def resolve(self, tables: list[np.ndarray], numbers: np.ndarray) -> np.ndarray:
        first = _clusters(tables, self.bands, len(numbers))
        shared = np.zeros(len(numbers), np.int64)
        for band in range(self.bands):
            keys = np.concatenate([table[:, band] for table in tables])
            shared += keys == keys[first]
        repeats = first != np.arange(len(numbers))
        shared = np.where(repeats, np.maximum(shared, 1), 0)
        return np.stack([numbers[first], shared], axis=1)

    def check_answers(self, draft: Draft, answers: np.ndarray) -> Checks:
        (first, shared) = answers[0].tolist()
        if shared:
            draft.notes["like document"] = first
        yield Check(f"of {self.bands} bands, shared with an earlier document", shared, high=0)


def shingles(text: str, n: int) -> np.ndarray:
    """(k,) uint64: hashes of the different runs of `n` tokens; of a shorter text, of all tokens."""
    tokens = token_hashes(text)
    return np.unique(windows(tokens, min(n, len(tokens)))) if len(tokens) else tokens


def _clusters(tables: list[np.ndarray], bands: int, size: int) -> np.ndarray:
    """(size,) int64: of each document, the first of those that share a band, directly or not."""
    root = np.arange(size)
    for band in range(bands):
        keys = np.concatenate([table[:, band] for table in tables])
        order = np.argsort(keys, kind="stable")
        same = np.flatnonzero(keys[order[1:]] == keys[order[:-1]])
        for a, b in zip(order[same].tolist(), order[same + 1].tolist(), strict=True):
            a, b = _find(root, a), _find(root, b)
            root[max(a, b)] = min(a, b)
    while not np.array_equal(above := root[root], root):
        root = above
    return root


def _find(root: np.ndarray, i: int) -> int:
    """The root of `i`; the way to it becomes shorter."""
    while (up := int(root[i])) != i:
        root[i] = root[up]
        i = up
    return i
