"""Cleaning of one document, and the reasons for which documents are dropped."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Literal

# C0 and C1 controls except tab and newline, and the byte-order mark: inside text it means nothing.
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ufeff]")


@dataclass(frozen=True)
class Cleaner:
    """What happens to every document before it is tokenised.

    Attributes:
      normalize: Unicode normal form. NFKC also unifies full-width and half-width characters. It
        is applied here and not in the tokenizer, where an export to Hugging Face would lose it.
      min_chars: shorter documents are dropped.
    """

    normalize: Literal["nfc", "nfkc", "none"] = "nfc"
    min_chars: int = 1

    def clean(self, text: str) -> str:
        """`text` with \\n line ends, no control characters but tab and newline, normalised."""
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        text = CONTROLS.sub("", text)
        if self.normalize != "none":
            form: Literal["NFC", "NFKC"] = "NFC" if self.normalize == "nfc" else "NFKC"
            text = unicodedata.normalize(form, text)
        return text

    def reason_to_drop(self, text: str) -> str | None:
        """Why a cleaned text is dropped; None if it is kept."""
        if not text.strip():
            return "empty"
        if len(text) < self.min_chars:
            return f"shorter than {self.min_chars} characters"
        return None
