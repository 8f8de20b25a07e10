"""Plain text of Aozora Bunko files: no ruby, no editor's notes, no header, no colophon.

The annotation is described in 青空文庫 注記一覧 (https://www.aozora.gr.jp/annotation/). Characters
outside Shift_JIS (外字) are notes that name a code point of JIS X 0213 or of Unicode; they become
that character, or 〓 (the printers' mark for a missing type) where the note names none.
"""

from __future__ import annotations

import re

RULE = re.compile(r"^-{20,}$", re.MULTILINE)
COLOPHON = re.compile(r"^底本(・初出)?：|^※底本", re.MULTILINE)
RUBY = re.compile(r"《[^《》\n]*》")
GAIJI = re.compile(r"※［＃([^［］]*)］")
NOTE = re.compile(r"［＃[^［］]*］")
JIS_CODE = re.compile(r"(?<![\d-])([12])-(\d{1,2})-(\d{1,2})(?![\d-])")
UNICODE_CODE = re.compile(r"U\+([0-9A-Fa-f]{4,6})")


def plain_text(text: str) -> str:
    """The work's own words in `text`, whose line ends are \\n; its first line stays the title."""
    text = _without_legend(text)
    if colophon := COLOPHON.search(text):
        text = text[: colophon.start()]
    text = RUBY.sub("", text).replace("｜", "")
    text = GAIJI.sub(_gaiji, text)
    while (shorter := NOTE.sub("", text)) != text:  # notes may hold notes
        text = shorter
    text = text.replace("／″＼", "〴〵").replace("／＼", "〳〵")
    return re.sub(r"\n{3,}", "\n\n", text).strip("\n") + "\n"


def _without_legend(text: str) -> str:
    """`text` without the block between two rules that explains the annotation."""
    rules = list(RULE.finditer(text))
    if len(rules) >= 2 and "記号について" in text[rules[0].end() : rules[1].start()]:
        return text[: rules[0].start()] + text[rules[1].end() :]
    return text


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
