"""Text of evaluation sets in training documents, by the n-grams that they share (Brown et al. 2020,
appendix C)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from llm_jax.config import UserError, require
from llm_jax.data.curate.draft import Check, Draft
from llm_jax.data.curate.hashing import are_single, hash_of, token_hashes, windows
from llm_jax.data.curate.step import Checks, Step
from llm_jax.data.sources import FileSource, LeftOut
from llm_jax.data.sources.local import problem
from llm_jax.runs.files import replacing

INDEX = "decontaminate-{}.npy"


@dataclass(frozen=True, kw_only=True)
class Decontaminate(Step):
    """Drops documents that share an n-gram of tokens with a text of `against`.

    A token is a word in lower case, or one character of Chinese or Japanese; punctuation does not
    count. Texts shorter than the n-gram cannot be found.

    Attributes:
      against: files or folders of texts: evaluation sets, or validation text.
      ngram: tokens of an n-gram most of which are words (GPT-3: 13).
      character_ngram: tokens of an n-gram most of which are single characters.
    """

    kind: Literal["decontaminate"] = "decontaminate"
    against: tuple[str, ...]
    text_key: str = "text"
    ngram: int = 13
    character_ngram: int = 30

    def __post_init__(self) -> None:
        require(bool(self.against), "decontaminate.against is empty: name files or folders.")
        for name in ("ngram", "character_ngram"):
            value = getattr(self, name)
            require(0 < value <= 1000, f"decontaminate.{name} is {value}: give 1 to 1,000.")

    def files(self) -> tuple[str, ...]:
        return self.against

    def prepare(self, folder: Path) -> None:
        left_out = LeftOut()
        parts = [np.zeros(0, np.uint64)]
        for name in self.against:
            if problem(Path(name)):
                raise UserError(
                    f"decontaminate.against names {name!r}, which cannot be read: check the path."
                )
            for document in FileSource(Path(name), text_key=self.text_key).documents(left_out):
                parts.append(self.grams(document.text))
        if left_out.lost:
            raise UserError(
                "decontaminate.against holds text that cannot be read "
                f"({', '.join(f'{why} {n:,}' for why, n in left_out.lost.items())}): fix the "
                "files, or set decontaminate.text_key."
            )
        found = np.unique(np.concatenate(parts))
        if not len(found):
            raise UserError(
                f"decontaminate.against ({', '.join(self.against)}) has no text of {self.ngram} "
                "words: check the paths, or make decontaminate.ngram smaller."
            )
        with replacing(folder / self._index) as path:
            np.save(path, found)

    def grams(self, text: str) -> np.ndarray:
        """(k,) uint64: hashes of the text's n-grams of words, and of those of characters."""
        tokens, single = token_hashes(text), are_single(text)
        counts = np.concatenate([[0], np.cumsum(single)])
        found = []
        for n, of_characters in ((self.ngram, False), (self.character_ngram, True)):
            if n <= len(tokens):
                most = 2 * (counts[n:] - counts[:-n]) > n
                found.append(windows(tokens, n)[most == of_characters])
        return np.concatenate([np.zeros(0, np.uint64), *found])

    @property
    def _index(self) -> str:
        return INDEX.format(f"{hash_of(repr(self)):016x}")

    def ready(self, folder: Path) -> Any:
        return _Ready(self, np.load(folder / self._index, mmap_mode="r", allow_pickle=False))


@dataclass(frozen=True)
class _Ready:
    step: Decontaminate
    index: np.ndarray

    def check(self, draft: Draft) -> Checks:
        grams = self.step.grams(draft.text)
        places = np.minimum(np.searchsorted(self.index, grams), len(self.index) - 1)
        hits = int((self.index[places] == grams).sum())
        yield Check("n-grams of evaluation text", hits, high=0)
