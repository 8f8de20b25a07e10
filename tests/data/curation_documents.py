"""2,000 documents that look like what a crawl brings: real text in English and Japanese
(Shakespeare, and Aozora Bunko's authors who died before 1950), cut, repeated and spoilt by a fixed
rule."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent / "curation"
NUMBER = 1000
"""Documents of each language."""
MODERN = (
    "The committee said that it would publish the report with all of its data on Monday.",
    "You have to be careful with the settings, and that is why we don't change them often.",
    "Read our privacy policy and the terms of use before you sign in to the site.",
    "It's 3.5% more than in 2019; see https://www.example.com/report?id=7 (page 12).",
    "Click here to enable JavaScript in your browser so that the page can be shown.",
    "Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod tempor.",
    "Home | News | Sport | Contact us",
    "- Buy now!",
    "• Free delivery to the U.S. and Mr. Smith's e-mail: sales@example.com",
    "function f(a) { return a + 1; }",
    "Prices rose[1] in the third quarter[edit] and fell again[citation needed].",
    "Read more...",
)
WEB = (
    "この商品のレビューを投稿する。コメント(3)",
    "2019年4月1日(月) 営業時間のお知らせ",
    "詳しくは https://www.example.co.jp/info?id=12 をご覧ください。",
    "ホーム | 会社概要 | お問い合わせ",
    "続きを読む…",
    "第12話 質問と回答",
    "コンピュータ・ネットワーク・サービス・プロバイダ・データベース・アプリケーション",
    "脚注",
    "Copyright 2001-2020 Example Inc. All rights reserved. " * 3,
    "ーーーーーーーー" * 30,
)


def documents() -> list[tuple[str, str]]:
    """(language, text) of each, the same on every machine."""
    made = []
    for language, web in (("en", MODERN), ("ja", WEB)):
        draw = random.Random(f"curation {language}")
        paragraphs = [p for p in _text(language).split("\n\n") if p.strip()]
        for _ in range(NUMBER):
            first = int(draw.random() * len(paragraphs))
            size = 1 + int(draw.random() * (12 if language == "en" else 3))
            text = "\n\n".join(paragraphs[first : first + size])
            if draw.random() < 0.4:
                text = _with_lines(text, web, draw)
            if draw.random() < 0.6:
                text = SPOIL[int(draw.random() * len(SPOIL))](text, draw)
            made.append((language, text))
    return made


@cache
def _text(language: str) -> str:
    name = {"en": "english", "ja": "japanese"}[language]
    return (FOLDER / f"{name}.txt").read_text(encoding="utf-8")


def _with_lines(text: str, web: tuple[str, ...], draw: random.Random) -> str:
    """`text` with lines of a web page between its own."""
    lines = text.split("\n")
    for _ in range(1 + int(draw.random() * 8)):
        lines.insert(int(draw.random() * (len(lines) + 1)), web[int(draw.random() * len(web))])
    return "\n".join(lines)


def _bullets(text: str, draw: random.Random) -> str:
    return "\n".join(("- " if draw.random() < 0.93 else "") + line for line in text.split("\n"))


def _ellipses(text: str, draw: random.Random) -> str:
    return "\n".join(line + ("..." if draw.random() < 0.4 else "") for line in text.split("\n"))


def _noise(text: str, draw: random.Random) -> str:
    share = draw.random() * 0.4
    return "".join(c if draw.random() > share else chr(33 + int(draw.random() * 94)) for c in text)


def _repeat(text: str, draw: random.Random) -> str:
    lines = text.split("\n")
    return "\n".join(lines + lines[: int(draw.random() * len(lines))])


def _short_lines(text: str, draw: random.Random) -> str:
    return "\n".join(line[: 5 + int(draw.random() * 40)] for line in text.split("\n"))


def _run(text: str, draw: random.Random) -> str:
    return text + "=" * int(draw.random() * 400)


def _hashes(text: str, draw: random.Random) -> str:
    return "".join(c + ("# " if draw.random() < 0.03 else "") for c in text)


def _one_phrase(text: str, draw: random.Random) -> str:
    return (text[:80] + " ") * (2 + int(draw.random() * 10)) + text


def _one_line(text: str, draw: random.Random) -> str:
    return "\n".join([text.replace("\n", " ")] * (1 + int(draw.random() * 4)))


SPOIL: tuple[Callable[[str, random.Random], str], ...] = (
    _bullets, _ellipses, _noise, _repeat, _short_lines, _run, _hashes, _one_phrase,
    _one_line,
)  # fmt: skip
