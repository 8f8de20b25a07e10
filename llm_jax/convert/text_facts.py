"""What a model card says about the text: its licences and languages, in the hub's identifiers."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from llm_jax.config import UserError
from llm_jax.data.dataset import TokenDataset

SAMPLE_TOKENS = 200_000
"""Tokens of the train split from which languages are guessed. Its documents are shuffled."""
JAPANESE = re.compile("[\u3041-\u3096\u30a1-\u30fa]")  # hiragana and katakana
ENGLISH = re.compile(r"\b(?:the|and|to|of|that|this|with|from|which)\b", re.IGNORECASE)
WORD = re.compile(r"[A-Za-z]+")
SHARE = 0.03
"""Smallest share of kana among the letters, or of English function words among the words, for a
language of the text. Other European languages have almost none of these words."""
PROMPTS = {"ja": "今日は", "en": "The"}
HUB_LICENCE = re.compile(
    r"""afl-3\.0 | apache-2\.0 | artistic-2\.0 | bsd | bsd-[23]-clause | bsl-1\.0 | cc | cc0-1\.0
    | cc-by-(2\.0|2\.5|3\.0|4\.0) | cc-by-sa-[34]\.0 | cc-by-nd-4\.0 | cc-by-nc-[234]\.0
    | cc-by-nc-nd-[34]\.0 | cc-by-nc-sa-[234]\.0 | epl-2\.0 | eupl-1\.[12] | gfdl | gpl
    | gpl-[23]\.0 | agpl-3\.0
    | lgpl | lgpl-2\.1 | lgpl-3\.0 | isc | mit | mpl-2\.0 | odbl | odc-by | pddl
    | postgresql | unknown | unlicense | wtfpl | zlib""",
    re.VERBOSE,
)
"""The hub's identifiers for licences of text. Every other licence becomes `other` with a name."""


@dataclass(frozen=True, kw_only=True)
class TextFacts:
    """What is known about the text that a model was trained on.

    Attributes:
      tokens: number of tokens in the dataset; None if the dataset is missing or has changed.
      licences: licence → number of documents.
      languages: ISO 639-1 codes.
      prompt: an example prompt in the text's language.
    """

    tokens: int | None = None
    licences: dict[str, int]
    languages: tuple[str, ...] = ()
    prompt: str = PROMPTS["en"]

    def front_matter(self, licences: Iterable[str]) -> list[str]:
        """Lines of the card's YAML. JSON strings are valid YAML.

        Args:
          licences: of all that the model was trained on.
        """
        lines = []
        if self.languages:
            lines.append(f"language: [{', '.join(self.languages)}]")
        name = ", ".join(licences)
        if HUB_LICENCE.fullmatch(name.lower()):
            lines.append(f"license: {name.lower()}")
        elif name:
            lines += ["license: other", f"license_name: {json.dumps(name, ensure_ascii=False)}"]
        return lines


def together(parts: Sequence[TextFacts]) -> TextFacts:
    """The facts about the texts of a mixture; a part that is missing makes the tokens unknown."""
    if len(parts) == 1:
        return parts[0]
    licences: Counter[str] = Counter()
    for part in parts:
        licences.update(part.licences)
    tokens = [part.tokens for part in parts if part.tokens is not None]
    return TextFacts(
        tokens=sum(tokens) if len(tokens) == len(parts) else None,
        licences=dict(licences),
        languages=tuple(dict.fromkeys(name for part in parts for name in part.languages)),
        prompt=parts[0].prompt,
    )


def text_facts(path: str | Path, fingerprint: str | None = None) -> TextFacts:
    """Facts about the dataset in `path`. They are empty if it is missing, cannot be read, or does
    not have the `fingerprint` that the run recorded (None: it recorded none)."""
    try:
        dataset = TokenDataset.open(path)
        count = min(SAMPLE_TOKENS, dataset.num_tokens("train"))
        sample = dataset.read("train", np.array([0]), count)[0]
        text = dataset.tokenizer.decode(sample.tolist())
    except (UserError, OSError, ValueError, KeyError):
        return TextFacts(licences={})
    info: dict[str, Any] = dataset.info
    if fingerprint not in (None, info.get("fingerprint")):
        return TextFacts(licences={})
    languages = languages_of(text)
    prompt = PROMPTS[languages[0]] if languages else " ".join(text.split()[:2])
    return TextFacts(
        tokens=info["tokens"], licences=info["licences"], languages=languages, prompt=prompt
    )


def languages_of(text: str) -> tuple[str, ...]:
    """Which of Japanese and English `text` contains, the more frequent one first. Other languages
    are not detected."""
    letters = sum(character.isalpha() for character in text)
    words = WORD.findall(text)
    kana = len(JAPANESE.findall(text)) / max(letters, 1)
    function_words = len(ENGLISH.findall(text)) / max(len(words), 1)
    found = []
    if kana >= SHARE:
        found.append("ja")
    latin = sum(map(len, words)) / max(letters, 1)
    if latin >= SHARE and function_words >= SHARE:
        found.insert(0 if latin > 0.5 else len(found), "en")
    return tuple(found)
