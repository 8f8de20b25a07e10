"""Aozora Bunko files as plain text, without ruby, editors' notes, legend and colophon.

The markup is described in 青空文庫 注記一覧 (https://www.aozora.gr.jp/annotation/). A character
outside Shift_JIS (外字) is written as a note with its code point in JIS X 0213 or Unicode. The note
becomes that character, or 〓 (the printers' mark for missing type) if it has no code point.

Accents are written after their letters, in brackets: 〔fe^te〕 is fête (アクセント分解,
https://www.aozora.gr.jp/accent_separation.html). The same brackets enclose what an editor has
added; those stay.
"""

from __future__ import annotations

import re
import unicodedata

RULE = re.compile(r"^-{20,}$", re.MULTILINE)
COLOPHON = re.compile(r"^底本(・初出)?：|^※底本", re.MULTILINE)
RUBY = re.compile(r"《[^《》\n]*》")
GAIJI = re.compile(r"※［＃([^［］]*)］")
NOTE = re.compile(r"［＃[^［］]*］")
JIS_CODE = re.compile(r"(?<![\d-])([12])-(\d{1,2})-(\d{1,2})(?![\d-])")
BRACKETS = re.compile(r"〔([^〔〕]*)〕")
LIGATURES = {"AE&": "Æ", "ae&": "æ", "OE&": "Œ", "oe&": "œ", "s&": "ß"}
STROKES = {"O/": "Ø", "o/": "ø", "!@": "¡", "?@": "¿"}
# Mark → (combining character, letters that take it).
ACCENTS = {
    "`": ("\u0300", "AEIOUaeiou"),
    "'": ("\u0301", "AEIOUYaeiouy"),
    "^": ("\u0302", "AEIOUaeiou"),
    "~": ("\u0303", "ANOano"),
    "_": ("\u0304", "AEIOUaeiou"),
    ":": ("\u0308", "AEIOUaeiouy"),
    "&": ("\u030a", "Aa"),
    ",": ("\u0327", "Cc"),
}
ACCENTED = {
    letter + mark: unicodedata.normalize("NFC", letter + combining)
    for mark, (combining, letters) in ACCENTS.items()
    for letter in letters
}
NOTATION = LIGATURES | STROKES | ACCENTED


def _spelling(two: str) -> str:
    """The pattern of a key of `NOTATION`, except where its mark is punctuation."""
    if two in ("U'", "u'"):  # French qu'il
        return f"(?<![Qq]){two}"
    if two.endswith(","):  # a, b, c, d
        return f"{two}(?=[A-Za-z])"
    if two.endswith(":"):  # a label such as A:
        return f"(?<=[A-Za-z]){two}|{two}(?=[A-Za-z])"
    return re.escape(two)


DECOMPOSED = re.compile("|".join(map(_spelling, NOTATION)))
UNICODE_CODE = re.compile(r"U\+([0-9A-Fa-f]{4,6})")


def plain_text(text: str) -> str:
    """The work's own words in `text`, whose line ends are \\n. Its first line stays the title."""
    text = _without_legend(text)
    if colophon := COLOPHON.search(text):
        text = text[: colophon.start()]
    text = RUBY.sub("", text).replace("｜", "")
    text = GAIJI.sub(_gaiji, text)
    while (shorter := NOTE.sub("", text)) != text:  # notes may hold notes
        text = shorter
    text = BRACKETS.sub(_accented, text)
    text = text.replace("／″＼", "〴〵").replace("／＼", "〳〵")
    return re.sub(r"\n{3,}", "\n\n", text).strip("\n") + "\n"


def _without_legend(text: str) -> str:
    """`text` without the legend, a block between two rules that explains the markup."""
    rules = list(RULE.finditer(text))
    if len(rules) >= 2 and "記号について" in text[rules[0].end() : rules[1].start()]:
        return text[: rules[0].start()] + text[rules[1].end() :]
    return text


def _accented(bracketed: re.Match[str]) -> str:
    """The words in the brackets with accents; unchanged, brackets included, if they have none."""
    text, found = DECOMPOSED.subn(lambda letter: NOTATION[letter[0]], bracketed[1])
    return text if found else bracketed[0]


def _gaiji(note: re.Match[str]) -> str:
    """The character that a 外字 note stands for."""
    if code := UNICODE_CODE.search(note[1]):
        value = int(code[1], 16)
        return chr(value) if value <= 0x10FFFF and not 0xD800 <= value < 0xE000 else "〓"
    if code := JIS_CODE.search(note[1]):
        plane, row, cell = (int(group) for group in code.groups())
        try:
            prefix = b"\x8f" if plane == 2 else b""
            return (prefix + bytes([0xA0 + row, 0xA0 + cell])).decode("euc_jis_2004")
        except (UnicodeDecodeError, ValueError):
            return "〓"
    return "〓"
