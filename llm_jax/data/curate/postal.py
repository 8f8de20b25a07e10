"""Finds postal addresses down to a house, of Japan and of the United States, by their form.

A town or a street alone is no address: in Japan a block's number is asked for, in the United States
the house's number, the state and its ZIP code. Whose address it is, a person's or a shop's, no rule
of form can tell.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

Places = Iterator[tuple[int, int]]

PREFECTURES = (
    "北海道|東京都|京都府|大阪府|(?:青森|岩手|宮城|秋田|山形|福島|茨城|栃木|群馬|埼玉|千葉|神奈川|新潟|富山"
    "|石川|福井|山梨|長野|岐阜|静岡|愛知|三重|滋賀|兵庫|奈良|和歌山|鳥取|島根|岡山|広島|山口|徳島|香川"
    "|愛媛|高知|福岡|佐賀|長崎|熊本|大分|宮崎|鹿児島|沖縄)県"
)
DIGIT, ANY_DIGIT = "[0-9０-９]", "[0-9０-９〇一二三四五六七八九十百]"
DASH = "[-‐‑–—−－ー]"
KANJI, KATAKANA = "々〇\u3400-\u9fff", "\u30a1-\u30faー・"
LETTER = f"{KANJI}{KATAKANA}\u3041-\u3096"
TOWN = rf"(?P<town>(?:[{LETTER}]|{DIGIT}{{1,2}}(?=[条線])){{0,24}})[ 　]?\Z"
POSTAL = rf"[ 　]?{DIGIT}{{3}}{DASH}{DIGIT}{{4}}\s{{0,2}}"
ROOM = (
    rf"(?:[ 　]?[{KANJI}{KATAKANA}A-Za-zＡ-Ｚａ-ｚ]{{0,20}}[ 　]?{DIGIT}{{1,4}}(?:号室|階|Ｆ|F))?"
)
BLOCK = re.compile(
    rf"(?<!{ANY_DIGIT})(?:{ANY_DIGIT}{{1,5}}丁目[ 　]?)?(?:"
    rf"(?P<strong>{ANY_DIGIT}{{1,6}}番地?[ 　]?の?{ANY_DIGIT}{{1,4}}号?|{ANY_DIGIT}{{1,6}}番地"
    rf"|(?<=丁目){DIGIT}{{1,4}}(?:{DASH}{DIGIT}{{1,4}}){{0,2}}(?:番|号)?"
    rf"|{DIGIT}{{1,4}}(?:{DASH}{DIGIT}{{1,5}}){{2,3}})"
    rf"|{DIGIT}{{1,5}}{DASH}{DIGIT}{{1,5}})(?!{DASH}?{DIGIT}|[年月日時点対回秒分]){ROOM}"
)
"""House numbers: 2丁目3番4号, 十二番地, 三丁目5-6, 1-2-3; also 1-2, which is not `strong`."""
BEFORE = 48
"""Characters before a house's number in which its town is looked for."""
WITH_PREFECTURE = re.compile(
    rf"(?:〒?{POSTAL})?(?:{PREFECTURES})[ 　]?[{LETTER}]{{1,7}}?[市区町村郡]{TOWN}"
)
WITH_CODE = re.compile(rf"〒{POSTAL}(?P<town>[{LETTER} 　]{{2,30}})\Z")
CITY = re.compile(rf"(?<![{KANJI}])[{KANJI}]{{1,5}}[市区]{TOWN}")
"""Without a prefecture: only before a strong house number."""
PROSE = re.compile(
    r"を|(?<!\A)は|\Aは(?![ぁ-ん])|\Aの\Z|(?:[にでともへが]|から|まで|より)\Z|[にでと]も|した|する|して"
    r"|された|って|ある|いる|こと"
)
"""What shows that the characters before a number are a sentence, not a town."""

STATES = (
    "A[KLRZ]|C[AOT]|D[CE]|FL|GA|HI|I[ADLN]|K[SY]|LA|M[ADEINOST]|N[CDEHJMVY]|O[HKR]|PA|PR|RI|S[CD]"
    "|T[NX]|UT|V[AIT]|W[AIVY]"
)
NAMES = (
    "Alabama|Alaska|Arizona|Arkansas|California|Colorado|Connecticut|Delaware|Florida|Georgia|Hawaii"
    "|Idaho|Illinois|Indiana|Iowa|Kansas|Kentucky|Louisiana|Maine|Maryland|Massachusetts|Michigan"
    "|Minnesota|Mississippi|Missouri|Montana|Nebraska|Nevada|New Hampshire|New Jersey|New Mexico"
    "|New York|North Carolina|North Dakota|Ohio|Oklahoma|Oregon|Pennsylvania|Rhode Island"
    "|South Carolina|South Dakota|Tennessee|Texas|Utah|Vermont|Virginia|Washington|West Virginia"
    "|Wisconsin|Wyoming|District of Columbia"
)
WORD, GAP = r"[A-Z0-9][\w'’.-]{0,20}", r"[ \t]{1,2}"
STREETS = (
    "Street|St|Avenue|Ave|Road|Rd|Boulevard|Blvd|Drive|Dr|Lane|Ln|Court|Ct|Way|Place|Pl|Terrace|Ter"
    "|Circle|Cir|Highway|Hwy|Parkway|Pkwy|Square|Sq|Trail|Trl|Broadway|Alley|Plaza|Pike|Row|Loop"
)
UNITED_STATES = re.compile(
    rf"(?<![\w.,$-])(?:\d{{1,6}}[A-Za-z]?{GAP}(?:{WORD}{GAP}){{0,4}}(?:{STREETS})\.?"
    rf"(?:{GAP}(?:N|S|E|W|NE|NW|SE|SW)\.?)?|P\.?[ ]?O\.?[ ]?Box{GAP}\d{{1,6}})"
    rf"(?:,?{GAP}(?:(?:Apt|Apartment|Suite|Ste|Unit|Room|Rm|Floor|Fl)\.?{GAP}|#[ ]?)[\w-]{{1,6}})?"
    rf"(?:,\s{{0,4}}|\s{{0,2}}\n\s{{0,4}})(?:[A-Z][\w'’.-]{{0,20}}{GAP}){{0,3}}[A-Z][\w'’.-]{{0,20}}"
    rf",?{GAP}(?:{STATES}|{NAMES}),?{GAP}\d{{5}}(?:-\d{{4}})?(?![\w-])"
)


def addresses(text: str) -> Places:
    """Addresses of Japan and of the United States, in the order in which they end."""
    found = [*_of_japan(text), *(match.span() for match in UNITED_STATES.finditer(text))]
    end = 0
    for place in sorted(found):
        if place[0] >= end:
            yield place
            end = place[1]


def _of_japan(text: str) -> Places:
    end = 0
    for match in BLOCK.finditer(text):
        first = max(match.start() - BEFORE, end)
        head = text[first : match.start()]
        forms = [WITH_PREFECTURE, WITH_CODE, *([CITY] if match["strong"] else [])]
        for form in forms:
            town = form.search(head)
            if town and not PROSE.search(town["town"]):
                yield first + town.start(), match.end()
                end = match.end()
                break
