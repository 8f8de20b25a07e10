"""A recipe: the steps that documents go through, in order."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from llm_jax.config import ConfigError, nearest, read_config, require
from llm_jax.data.curate.steps.c4 import C4, C4Paragraphs
from llm_jax.data.curate.steps.classifier import Classifier
from llm_jax.data.curate.steps.code import Code
from llm_jax.data.curate.steps.decontaminate import Decontaminate
from llm_jax.data.curate.steps.fineweb import FineWeb
from llm_jax.data.curate.steps.gopher import GopherQuality, GopherRepetition
from llm_jax.data.curate.steps.hojichar import HojiChar
from llm_jax.data.curate.steps.hojichar_words import HojiCharWords
from llm_jax.data.curate.steps.language import Language
from llm_jax.data.curate.steps.lists import Url, Words
from llm_jax.data.curate.steps.llm_jp import (
    Compression,
    FullStops,
    JapaneseLines,
    JapaneseStart,
    WikipediaEnd,
)
from llm_jax.data.curate.steps.near_duplicates import NearDuplicates
from llm_jax.data.curate.steps.pii import Pii
from llm_jax.data.curate.steps.repeated_paragraphs import RepeatedParagraphs
from llm_jax.data.curate.steps.swallow import Swallow

AnyStep = (
    C4
    | C4Paragraphs
    | Classifier
    | Code
    | Compression
    | Decontaminate
    | FineWeb
    | FullStops
    | GopherQuality
    | GopherRepetition
    | HojiChar
    | HojiCharWords
    | JapaneseLines
    | JapaneseStart
    | Language
    | NearDuplicates
    | Pii
    | RepeatedParagraphs
    | Swallow
    | Url
    | WikipediaEnd
    | Words
)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Steps in the order in which they run, each with its `kind` and thresholds."""

    steps: tuple[AnyStep, ...] = ()

    def names(self) -> list[str]:
        """A name of each step: its kind, numbered where a kind occurs again."""
        kinds = [step.kind for step in self.steps]
        return [
            kind if kinds.index(kind) == i else f"{kind} {kinds[: i + 1].count(kind)}"
            for i, kind in enumerate(kinds)
        ]


WEB_EN = Recipe(
    steps=(
        Language(keep=("en",)),
        GopherQuality(),
        GopherRepetition(),
        C4(terminal_punctuation=False),
        FineWeb(),
        NearDuplicates(),
        Pii(regions=("US", "GB")),
    )
)
WEB_JA = Recipe(
    steps=(
        Language(keep=("ja",)),
        JapaneseStart(),
        JapaneseLines(),
        FullStops(),
        Compression(),
        HojiChar(),
        Swallow(),
        RepeatedParagraphs(),
        NearDuplicates(),
        Pii(),
    )
)
CODE = Recipe(steps=(Code(), NearDuplicates(), Pii(kinds=("email", "ip", "card"))))
BOOKS_JA = Recipe(
    steps=(Language(keep=("ja",), min_probability=0.5), FullStops(), NearDuplicates())
)
RECIPES = {
    "web-en": WEB_EN,
    "web-ja": WEB_JA,
    "code": CODE,
    "books-ja": BOOKS_JA,
    "none": Recipe(),
}
"""FineWeb's thresholds, and its order but for Gopher's rules, of which the cheaper one, which also
bounds the length of a text, comes first; C4 is without its rule about the ends of lines, as in
FineWeb. For Japanese the rules of llm-jp-corpus, HojiChar and Swallow in turn."""


def load_recipe(reference: str) -> Recipe:
    """A ready recipe by its name, or the one in a JSON file.

    Raises:
      ConfigError: there is none of that name, or the file does not hold a recipe.
    """
    if reference in RECIPES:
        return RECIPES[reference]
    path = Path(reference)
    if path.suffix != ".json":
        known = [*RECIPES]
        raise ConfigError(
            f"There is no recipe {reference!r}: {nearest(reference, known)} Or give a .json file."
        )
    require(path.is_file(), f"There is no recipe file {reference!r}: check the path.")
    return read_config(path, Recipe, "recipe")
