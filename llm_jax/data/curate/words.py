"""Words and sentences of text that separates words by spaces, without a model.

The published rules were run with spaCy's tokenizer for English. This follows its method: each run
of characters between spaces loses marks at its two ends, unless it is a known whole, and is then
cut at marks inside of it. Runs are remembered, as most of a text's occur again.
"""

from __future__ import annotations

import functools
import re
import unicodedata

from llm_jax.data.curate.marks import TERMINAL

LOWER, UPPER = "a-zß-öø-ÿа-яёα-ω", "A-ZÀ-ÖØ-ÞА-ЯЁΑ-Ω"
UNCASED = (
    "\u0590-\u05ff\u0620-\u06ff\u0900-\u097f\u0e00-\u0e7f\u3041-\u30ff\u3400-\u9fff\uac00-\ud7af"
)
LETTER = f"{LOWER}{UPPER}\u0100-\u024f{UNCASED}"
QUOTES = "'\"”“`‘´’‚„»«「」『』（）〔〕【】《》〈〉"
PUNCTUATION = r",:;!?¿؟¡()\[\]{}<>_#*&。？！，、；：～·।،۔؛٪"
SYMBOLS = "©®°¦\u2100-\u2101\u2103-\u2109\u2116-\u2117\u211e-\u2127\u2190-\u23ff\u2460-\u25ff"
SYMBOLS += "\u2600-\u27bf\u2900-\u2bff\u3012-\u3013\u3200-\u33ff\ufffc-\ufffd\U0001f000-\U0001faff"
CURRENCY = "$£€¥฿\u20a0-\u20bf"
UNITS = (
    "km²|km³|km/h|km|m/s|m²|m³|mm²|mm³|mm|cm²|cm³|cm|dm²|dm³|dm|ha|µm|nm|yd|in|ft|kg|mg|µg|lb|oz"
    "|kmh|mph|hPa|Pa|mbar|mb|MB|kb|KB|gb|GB|tb|TB|g|t|m|T|G|M|K|%"
)
PREFIX = re.compile(
    rf"[§%=—–]|\+(?![0-9])|…|[{PUNCTUATION}]|\.\.+|[{QUOTES}]|[CAU]S?\$|[{CURRENCY}]|[{SYMBOLS}]"
)
SUFFIX = re.compile(
    rf"(?:……|…|[{PUNCTUATION}]|\.\.+|[{QUOTES}]|[{SYMBOLS}]|['’][sS]|[—–]|(?<=[0-9])\+"
    rf"|(?<=[0-9])(?:[{CURRENCY}]|{UNITS})"
    rf"|(?<=[0-9{LOWER}{UNCASED}%²\-+{PUNCTUATION}{QUOTES}…])\.|(?<=[{UPPER}][{UPPER}])\.)\Z"
)
INFIX = re.compile(
    rf"\.\.+|…|[{SYMBOLS}]|(?<=[0-9])[+\-*^](?=[0-9-])"
    rf"|(?<=[{LOWER}{UNCASED}{QUOTES}])\.(?=[{UPPER}{QUOTES}])"
    rf"|(?<=[{LETTER}]),(?=[{LETTER}])|(?<=[{LETTER}0-9])(?:---?|——|[-–—~])(?=[{LETTER}])"
    rf"|(?<=[{LETTER}0-9])[:<>=/](?=[{LETTER}])"
)
ADDRESS = re.compile(
    rf"(?:[\w+\-.]{{2,}}://)?(?:\S+(?::\S*)?@)?(?:(?:\d{{1,3}}\.){{3}}\d{{1,3}}"
    rf"|(?:[A-Za-z0-9\u00a1-\uffff](?:[A-Za-z0-9\u00a1-\uffff_-]{{0,62}}[A-Za-z0-9\u00a1-\uffff])?\.)+"
    rf"[{LOWER}{UNCASED}]{{2,63}})(?::\d{{2,5}})?(?:[/?#]\S*)?"
)
KNOWN = """
    and/or C++ C# a.m. p.m. e.g. i.e. E.g. I.e. vs. Mr. Mrs. Ms. Dr. Prof. St. Jr. Sr. Inc. Co.
    Corp. Ltd. Bros. Gen. Gov. Rep. Sen. Rev. Mt. Adm. Messrs. Ph.D. o'clock co. n't 's
    Jan. Feb. Mar. Apr. Jun. Jul. Aug. Sep. Sept. Oct. Nov. Dec. Ala. Ariz. Ark. Calif. Colo. Conn.
    Del. Fla. Ga. Ia. Id. Ill. Ind. Kan. Kans. Ky. La. Mass. Md. Mich. Minn. Miss. Mo. Mont. N.C.
    Neb. Nebr. Nev. Ore. Pa. Penn. Tenn. Va. Wash. Wis. D.C. N.D. N.H. N.J. N.M. N.Y. Okla. S.C.
    :) :( :-) ;) :D :P ;-) :-( :/ <3 -_- ^_^ '' --- ---- \\n \\t <space> :'( 8) 8-) ): :* :> (; (:
    :| =) =( >.< o.o o.0 :* :-* :] :-] [: [-: :> :-> :} :-} =] [= ]= =/ =| >.> <.< :') :'-( :o) (o:
    :() :(( :((( :)) :))) :-(( :-)) (=  ;_; @_@ \\") 's 'S 'd 'll 're ‘s ’s ’S ’d ’ll ’re ’’
    'em 'bout 'cause 'cos 'cuz 'nuff ’em ’bout ’cause ’cos ’cuz ’nuff
"""
WHOLE = frozenset(KNOWN.split())
LONGEST_WHOLE = max(map(len, WHOLE))
CONTRACTION = re.compile(
    r"(?P<not>(?:[Aa]re|[Cc]a|[Cc]ould|[Dd]id|[Dd]oes|[Dd]o|[Hh]ad|[Hh]as|[Hh]ave|[Ii]s|[Mm]ay|[Mm]ight"
    r"|[Mm]ust|[Nn]eed|[Oo]ught|[Ss]ha|[Ss]hould|[Ww]as|[Ww]ere|[Ww]o|[Ww]ould|[Aa]i))(?P<nt>n['’]?t)"
    r"|(?P<who>[Ii]|[Yy]ou|[Hh]e|[Ss]he|[Ii]t|[Ww]e|[Tt]hey|[Tt]hat|[Tt]his|[Tt]here|[Ww]ho|[Ww]hat"
    r"|[Ww]hen|[Ww]here|[Ww]hy|[Hh]ow)(?P<verb>['’](?:m|d|ll|re|ve))"
)
BARE = {
    f"{who}{end}": (who, end)
    for whos, ends in {
        "can Can": "not", "I i": "m d ve", "you You they They": "d ll re ve", "we We": "d ve",
        "he He": "d s", "she She": "s", "it It that That": "d ll", "that That what What": "s",
        "who Who where Where there There how How": "d ll re s ve",
    }.items()
    for who in whos.split()
    for end in ends.split()
}  # fmt: skip
"""Contractions without their apostrophe."""
PLAIN = re.compile(r"\w+|[^\w\s]")
LONGEST = 1000
"""Characters of a run that is cut as spaCy cuts it, which takes the square of its length; longer
ones are machine text, and are cut at every mark."""
REMEMBERED = 1 << 17
"""Runs of characters; a few tens of megabytes."""


def words_of(text: str) -> list[str]:
    """Words and punctuation marks of `text`, in order."""
    return [word for run in text.split() for word in _cut(run)]


def count_sentences(line: str) -> int:
    """Sentences of a line: one begins with the first word after a mark that ends one."""
    count = ended = 1
    started = False
    for word in words_of(line):
        if word in TERMINAL:
            ended, started = 1, True
        elif ended and not _is_mark(word):
            count += started
            ended, started = 0, True
    return count if started or line.strip() else 0


@functools.lru_cache(maxsize=REMEMBERED)
def _cut(run: str) -> tuple[str, ...]:
    """The words of a run of characters without spaces."""
    if run.isalpha() and run.isascii():
        return BARE.get(run, (run,))
    if len(run) > LONGEST:
        return tuple(PLAIN.findall(run))
    before: list[str] = []
    after: list[str] = []
    while run and not _is_whole(run):
        size = len(run)
        if found := PREFIX.match(run):
            before.append(found[0])
            run = run[found.end() :]
            if _is_whole(run):
                break
        if found := SUFFIX.search(run):
            after.append(found[0])
            run = run[: found.start()]
        if len(run) == size:
            break
    return _joined([*before, *_inside(run), *reversed(after)])


def _joined(parts: list[str]) -> tuple[str, ...]:
    """The parts of a run, those that are a known whole together as one."""
    made, i = [], 0
    while i < len(parts):
        whole, size, joined = parts[i], 1, parts[i]
        for more in range(i + 1, len(parts)):
            joined += parts[more]
            if len(joined) > LONGEST_WHOLE:
                break
            if _is_whole(joined):
                whole, size = joined, more + 1 - i
        made.append(whole)
        i += size
    return tuple(made)


def _is_whole(run: str) -> bool:
    initial = len(run) == 2 and run[1] == "." and run[0].isalpha() and run[0].islower()
    return initial or run in WHOLE


def _inside(run: str) -> list[str]:
    """The words of a run without marks at its ends."""
    if not run:
        return []
    if run in BARE:
        return list(BARE[run])
    if _is_whole(run) or ADDRESS.fullmatch(run):
        return [run]
    if found := CONTRACTION.fullmatch(run):
        return [part for part in found.groups() if part]
    parts, end = [], 0
    for found in INFIX.finditer(run):
        if found.start() > end:
            parts.append(run[end : found.start()])
        parts.append(found[0])
        end = found.end()
    return [*parts, run[end:]] if end < len(run) else parts


@functools.lru_cache(maxsize=4096)
def _is_mark(word: str) -> bool:
    return all(unicodedata.category(character)[0] == "P" for character in word)
