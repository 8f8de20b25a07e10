"""A web crawl that nobody wrote: HTML pages in three languages, with spam, noise and copies.

    python benchmarks/made_up_crawl.py --aozora FOLDER --pages 2000 --out DIR

Writes DIR/train.warc.gz and DIR/held_out.warc.gz, the same on every machine with the same Python.
Articles in English are paragraphs of Python's language reference (`pydoc_data.topics`), those in
Japanese are of the works in FOLDER, as Aozora Bunko delivers them; French comes from a grammar of
fifty words. No topic and no work is in both files.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import random
from collections.abc import Callable, Iterator
from html import escape
from pathlib import Path
from pydoc_data.topics import topics

from llm_jax.data.sources import FileSource, LeftOut

KINDS = {
    "article": 0.36,
    "copy": 0.12,
    "french": 0.10,
    "spam": 0.16,
    "noise": 0.16,
    "menu": 0.10,
}
"""Share of each kind of page."""
HELD_OUT = 8
"""One of so many topics and works is held out."""
GOODS = [
    "watches",
    "pills",
    "loans",
    "casino",
    "shoes",
    "insurance",
    "vitamins",
    "tickets",
    "phones",
    "diet",
]
PRAISE = [
    "best",
    "cheap",
    "free",
    "discount",
    "online",
    "top",
    "official",
    "new",
    "limited",
    "exclusive",
]
SUBJECTS = [
    "Le jardin",
    "La ville",
    "Mon voisin",
    "Le train",
    "Notre école",
    "La mer",
    "Un ami",
    "Le marché",
]
VERBS = ["attend", "regarde", "oublie", "raconte", "traverse", "choisit", "explique", "cherche"]
OBJECTS = ["la pluie", "un vieux livre", "le matin", "cette histoire", "les enfants", "son chemin"]
ENDS = "avant la nuit,sans le dire,avec patience,dans le silence,comme autrefois,chaque année"
LOG = "{:02d}:{:02d}:{:02d} GET /api/v{}/items/{} 200 {}ms cache=MISS worker={}"


def is_held_out(name: str) -> bool:
    return int(hashlib.sha256(name.encode()).hexdigest(), 16) % HELD_OUT == 0


def english(held_out: bool) -> list[list[str]]:
    """Articles from the paragraphs of topics that are sentences; each paragraph is in one."""
    found, seen = list[list[str]](), set[str]()
    for name, text in sorted(topics.items()):
        parts = [" ".join(part.split()) for part in text.split("\n\n")]
        parts = [p for p in parts if p.endswith(".") and len(p) > 80 and not set(p) & set("{|=<")]
        parts = [p for p in parts if p not in seen]
        seen |= {*parts}
        if is_held_out(name) == held_out:
            found += [parts[i : i + 4] for i in range(0, len(parts) - 3, 4)]
    return found


def japanese(works: list[Path], held_out: bool) -> list[list[str]]:
    """Articles of ten paragraphs from the works; each paragraph is in one."""
    found = list[list[str]]()
    for work in works:
        if is_held_out(work.name) != held_out:
            continue
        for document in FileSource(work, "cp932", markup="aozora").documents(LeftOut()):
            parts = [p.strip() for p in document.text.split("\n") if len(p) > 40]
            found += [parts[i : i + 10] for i in range(0, len(parts) - 9, 10)]
    return found


def page(title: str, paragraphs: list[str], language: str, draw: random.Random) -> bytes:
    """An article between a menu and a footer."""
    menu = "".join(f'<li><a href="/{w}">{w.title()}</a></li>' for w in draw.sample(GOODS, 5))
    body = "".join(f"<p>{escape(text)}</p>" for text in paragraphs)
    return (
        f'<html lang="{language}"><head><title>{escape(title)}</title></head><body>'
        f"<nav><ul>{menu}</ul></nav><article><h1>{escape(title)}</h1>{body}</article>"
        "<footer>Terms of use | Privacy policy | All rights reserved</footer></body></html>"
    ).encode()


def article(texts: dict[str, list[list[str]]], draw: random.Random) -> tuple[str, list[str]]:
    """Its language and paragraphs, which are taken from `texts`; one in four has an address or a
    number of somebody."""
    language = draw.choices([*texts], [len(left) for left in texts.values()])[0]
    chosen = texts[language].pop()
    if draw.random() < 0.25:
        reach = f"{draw.choice(GOODS)}{draw.randrange(999)}@mail{draw.randrange(9)}.example.org"
        number = f"212-555-{draw.randrange(10_000):04d}"
        asked = {
            "en": f"Please write to {reach} or call {number} if you have a question.",
            "ja": f"ご質問は{reach}までお送りください。",
        }
        chosen = [*chosen, asked[language]]
    return language, chosen


def french(draw: random.Random) -> list[str]:
    def sentence() -> str:
        words = (draw.choice(one) for one in (SUBJECTS, VERBS, OBJECTS, ENDS.split(",")))
        return f"{' '.join(words)}."

    return [" ".join(sentence() for _ in range(6)) for _ in range(5)]


def spam(draw: random.Random) -> list[str]:
    goods, praise = draw.choice(GOODS), draw.sample(PRAISE, 4)
    offer = f"Buy {praise[0]} {goods} {praise[1]} {goods} online, {praise[2]} {goods} {praise[3]}"
    return [offer + " order now!!! click here" for _ in range(draw.randint(6, 30))]


def noise(draw: random.Random) -> list[str]:
    """A hex dump, a log, or characters at random."""
    kind = draw.randrange(3)
    rows = range(draw.randint(20, 80))
    if kind == 0:
        return [" ".join(draw.randbytes(16).hex(" ", 2).split()) for _ in rows]
    if kind == 1:
        times = ((draw.randrange(n) for n in (24, 60, 60, 4, 99999, 900, 32)) for _ in rows)
        return [LOG.format(*numbers) for numbers in times]
    return [
        "".join(chr(draw.randint(33, 0x24F)) for _ in range(draw.randint(40, 90))) for _ in rows
    ]


def menu(draw: random.Random) -> list[str]:
    return [f"{draw.choice(PRAISE)} {draw.choice(GOODS)} » more..." for _ in range(40)]


def copied(paragraphs: list[str], draw: random.Random) -> list[str]:
    """Nearly the same: one word, or one character of Japanese, is another."""
    text = draw.choice(paragraphs)
    place = draw.randrange(len(text))
    changed = text[:place] + "X" + text[place + 1 :]
    return [changed if one is text else one for one in paragraphs]


JUNK: dict[str, Callable[[random.Random], list[str]]] = {
    "french": french,
    "spam": spam,
    "noise": noise,
    "menu": menu,
}


def pages(works: list[Path], count: int, seed: int, held_out: bool) -> Iterator[tuple[str, bytes]]:
    """(kind, HTML) of each page."""
    draw = random.Random(f"{seed} {held_out}")
    texts = {"en": english(held_out), "ja": japanese(works, held_out)}
    for articles in texts.values():
        draw.shuffle(articles)
    before: list[tuple[str, list[str]]] = []
    for number in range(count):
        (kind,) = draw.choices([*KINDS], [*KINDS.values()])
        if kind == "copy" and before:
            language, paragraphs = draw.choice(before)
            paragraphs = copied(paragraphs, draw)
        elif kind in ("article", "copy"):
            if not any(texts.values()):
                raise SystemExit(f"Text for articles ends at page {number}: lower --pages.")
            language, paragraphs = article(texts, draw)
            before.append((language, paragraphs))
        else:
            language, paragraphs = "fr" if kind == "french" else "en", JUNK[kind](draw)
        yield kind, page(f"{draw.choice(PRAISE).title()} {number}", paragraphs, language, draw)


def write(works: list[Path], count: int, seed: int, held_out: bool, file: Path) -> dict[str, int]:
    """Writes the WARC file; returns how many pages of each kind it has."""
    from warcio.statusandheaders import StatusAndHeaders
    from warcio.warcwriter import WARCWriter

    counts = dict.fromkeys(KINDS, 0)
    with file.open("wb") as stream:
        writer = WARCWriter(stream, gzip=True)
        for number, (kind, html) in enumerate(pages(works, count, seed, held_out)):
            counts[kind] += 1
            headers = [("Content-Type", "text/html; charset=utf-8")]
            writer.write_record(
                writer.create_warc_record(
                    f"http://example.com/{kind}/{number}",
                    "response",
                    payload=io.BytesIO(html),
                    http_headers=StatusAndHeaders("200 OK", headers, protocol="HTTP/1.1"),
                    warc_headers_dict={"WARC-Date": "2024-03-01T00:00:00Z"},
                )
            )
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--aozora", type=Path, required=True, help="folder of works")
    parser.add_argument(
        "--pages", type=int, default=2000, help="for training; an eighth more held out"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    works = sorted(args.aozora.glob("*.txt"))
    for name, held_out, share in (("train", False, 1), ("held_out", True, HELD_OUT)):
        count = args.pages // share
        counts = write(works, count, args.seed, held_out, args.out / f"{name}.warc.gz")
        print(name, counts)


if __name__ == "__main__":
    main()
