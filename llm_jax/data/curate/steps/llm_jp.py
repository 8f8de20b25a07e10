"""The rules of llm-jp-corpus v1 for Japanese pages of the web and of Wikipedia."""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from typing import Literal

from llm_jax.data.curate.draft import Check, Draft
from llm_jax.data.curate.step import Checks, Step

KANA = re.compile("[ぁ-んァ-ン]")
KANA_ANYWHERE = re.compile(
    "[\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\u32d0-\u32fe"
    "\u3300-\u3357\uff66-\uff6f\uff71-\uff9d\U0001aff0-\U0001b168\U0001f200]"
)
"""Characters of Unicode's scripts Hiragana and Katakana, and ー."""
ADDRESS = re.compile(r"https?://[\w/:%#$&?()~.=+\-]+")
MACHINE = re.compile("[\x00-\x7f]{100,}")
SECTIONS = (
    "脚注|関連項目|日本国内の関連項目|出典|出典・脚注|参照|外部リンク|参考文献|その他関連事項"
    "|Footnotes|See also|Further reading|Bibliography|References|Notes|Citations|Sources"
    "|External links"
)
FOOT = re.compile(rf"\n(?:{SECTIONS})\s*\n")


@dataclass(frozen=True, kw_only=True)
class JapaneseStart(Step):
    """Kana among the first characters (HojiChar's and llm-jp's test for Japanese)."""

    kind: Literal["japanese_start"] = "japanese_start"
    characters: int = 50

    def check(self, draft: Draft) -> Checks:
        kana = len(KANA.findall(draft.text[: self.characters]))
        yield Check(f"kana in the first {self.characters} characters", kana, 1)


@dataclass(frozen=True, kw_only=True)
class JapaneseLines(Step):
    """Takes away lines without kana, and addresses and long runs of ASCII in the others.

    llm-jp-corpus joins the lines that are left. Here they stay lines.
    """

    kind: Literal["japanese_lines"] = "japanese_lines"

    def check(self, draft: Draft) -> Checks:
        lines = draft.text.split("\n")
        kept = [line for line in lines if KANA_ANYWHERE.search(line)]
        if len(kept) < len(lines):
            draft.edits["japanese_lines: line without kana"] += len(lines) - len(kept)
        text, addresses = ADDRESS.subn("", "\n".join(kept))
        text, runs = MACHINE.subn("", text)
        if addresses:
            draft.edits["japanese_lines: address"] += addresses
        if runs:
            draft.edits["japanese_lines: run of ASCII"] += runs
        draft.rewrite(text)
        yield Check("characters left", len(text.strip()), 1)


@dataclass(frozen=True, kw_only=True)
class FullStops(Step):
    """Enough 。 for the length of the text: at least one each `max_mean_sentence` characters.

    llm-jp-corpus takes 250 (80 in its strict form), HojiChar 100.
    """

    kind: Literal["full_stops"] = "full_stops"
    max_mean_sentence: float = 250.0

    def check(self, draft: Draft) -> Checks:
        each = self.max_mean_sentence
        stops = draft.text.count("。") * each / len(draft.text) if draft.text else 1.0
        yield Check(f"full stops per {each:g} characters", stops, 1.0)


@dataclass(frozen=True, kw_only=True)
class Compression(Step):
    """Size after deflate at level 9, as a share of the UTF-8 bytes: neither lists nor noise."""

    kind: Literal["compression"] = "compression"
    min_ratio: float = 0.3
    max_ratio: float = 0.7

    def check(self, draft: Draft) -> Checks:
        raw = draft.text.encode()
        ratio = len(zlib.compress(raw, 9)) / (len(raw) or 1)
        yield Check("compression ratio", ratio, self.min_ratio, self.max_ratio)


@dataclass(frozen=True, kw_only=True)
class WikipediaEnd(Step):
    """Cuts a Wikipedia article where its notes, references or links begin."""

    kind: Literal["wikipedia_end"] = "wikipedia_end"

    def check(self, draft: Draft) -> Checks:
        if found := FOOT.search(draft.text):
            draft.edits["wikipedia_end: end of an article"] += 1
            draft.rewrite(draft.text[: found.start()])
        yield Check("characters left", len(draft.text.strip()), 1)
