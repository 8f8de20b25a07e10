"""Parts of a report page: one self-contained file without scripts or network access."""

from __future__ import annotations

from html import escape

LIGHT = """--paper: #fff; --page: #f5f7fa; --ink: #1f2933; --soft: #5a6672; --line: #e4e7eb;
  --axis: #9aa5b1; --accent: #c2410c; --band: #c5d9ee; --range: #e9ecef; --faint: #9bb7d4;
  --blue: #1c4e80; --orange: #b35c12; --chosen: #fff4e6; --warn: #fff9db; --edge: #f08c00;
  --good: #e6f4ea; --sign: #2b8a3e;"""
DARK = """--paper: #161b22; --page: #0d1117; --ink: #e6eaef; --soft: #a7b2be; --line: #30383f;
  --axis: #6b7682; --accent: #ff9b6a; --band: #27405c; --range: #2a323b; --faint: #56789c;
  --blue: #8ab4e8; --orange: #f0a35e; --chosen: #3a2a17; --warn: #332b12; --edge: #f08c00;
  --good: #16301f; --sign: #51cf66;"""
STYLE = (
    f"""
:root {{ color-scheme: light dark; {LIGHT} }}
@media screen and (prefers-color-scheme: dark) {{ :root {{ {DARK} }} }}
"""
    + """
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); line-height: 1.5;
  font: 15px/1.5 system-ui, "Segoe UI", Roboto, "Noto Sans", "Hiragino Sans", sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 36px 28px 64px; background: var(--paper); }
header { border-bottom: 3px solid var(--ink); padding-bottom: 16px; margin-bottom: 20px; }
h1 { font-size: 30px; line-height: 1.2; margin: 0 0 6px; letter-spacing: -0.01em; }
h2 { font-size: 19px; margin: 40px 0 10px; }
h3 { font-size: 15px; margin: 22px 0 4px; }
p, li { max-width: 84ch; } .soft { color: var(--soft); margin: 0; }
h1, h2, p, li, pre, .tile { overflow-wrap: anywhere; } td { overflow-wrap: break-word; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(140px, 1fr));
  gap: 12px; margin: 22px 0; }
.tile { border: 1px solid var(--line); border-radius: 8px; padding: 12px 14px; }
.tile b { display: block; font-size: 21px; font-weight: 650; }
.tile span { color: var(--soft); font-size: 12.5px; display: block; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 20px; margin-bottom: 20px; }
.pair > * { min-width: 0; }
figure { margin: 0; border: 1px solid var(--line); border-radius: 8px; padding: 14px; }
figure svg { width: 100%; height: auto; display: block; }
figcaption { color: var(--soft); font-size: 13px; margin-top: 4px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th, td { text-align: left; padding: 6px 10px; border-bottom: 1px solid var(--line);
  vertical-align: top; }
th { font-weight: 600; color: var(--soft); } .n { text-align: right; white-space: nowrap; }
td:last-child:not(.n) { min-width: 11em; }
td:first-child { min-width: 7em; overflow-wrap: normal; }
tr.chosen td { background: var(--chosen); font-weight: 600; }
ul.bars { display: grid; grid-template-columns: max-content max-content 1fr; gap: 4px 12px;
  list-style: none; margin: 0; padding: 0; align-items: center; font-size: 14px; }
.bars li { display: contents; }
.bars i { display: block; height: 13px; min-width: 1px; border-radius: 2px; background: var(--blue);
  print-color-adjust: exact; }
.warn, .good, .note { border-left: 4px solid var(--edge); background: var(--warn);
  padding: 10px 18px; margin: 18px 0; }
.good { background: var(--good); border-color: var(--sign); }
.note { background: var(--page); border-color: var(--blue); }
.warn h3, .good h3, .note h3 { margin-top: 0; }
.warn ul, ul.plain { margin: 4px 0; padding-left: 20px; }
pre { white-space: pre-wrap; background: var(--page); border: 1px solid var(--line);
  border-radius: 8px; padding: 12px 14px; font-size: 13px; margin: 8px 0; }
pre b { color: var(--blue); }
@media screen and (max-width: 860px) { .pair { grid-template-columns: minmax(0, 1fr); } }
@media screen and (max-width: 520px) { main { padding: 20px 14px 40px; } h1 { font-size: 23px; }
  .tile b { font-size: 18px; } figure { padding: 8px; } th, td { padding: 6px; }
  ul.bars { grid-template-columns: 1fr max-content; } .bars i { grid-column: 1 / -1; } }
@media print { :root { color-scheme: light; } body, main { background: white; } main { padding: 0; }
  figure, tr, .tile, pre { break-inside: avoid; } h2, h3 { break-after: avoid; } }
"""
)

UNKNOWN = "–"
"""What a table shows where nothing is known."""


def document(title: str, sections: list[str]) -> str:
    """The whole page; `sections` are HTML."""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n"
        f"<body><main>{''.join(sections)}</main></body></html>\n"
    )


def head(title: str, line: str, tiles: list[tuple[str, str, str]]) -> str:
    """The top of a page: its title, a line below it, and tiles of (name, value, more)."""
    boxes = "".join(
        f'<div class="tile"><span>{escape(name)}</span><b>{escape(value)}</b>'
        f"<span>{escape(more)}</span></div>"
        for name, value, more in tiles
    )
    return (
        f'<header><h1>{escape(title)}</h1><p class="soft">{escape(line)}</p></header>'
        f'<div class="tiles">{boxes}</div>'
    )


def section(title: str, body: str) -> str:
    """A section; `title` is text, `body` is HTML. Nothing without a body."""
    return f"<section><h2>{escape(title)}</h2>{body}</section>\n" if body else ""


def box(kind: str, title: str, items: list[str]) -> str:
    """A list of texts in a box of `kind` "warn", "good" or "note". Nothing without items."""
    return f'<div class="{kind}"><h3>{escape(title)}</h3>{listing(items)}</div>' if items else ""


def listing(items: list[str]) -> str:
    """A list of texts."""
    return f'<ul class="plain">{"".join(f"<li>{escape(item)}</li>" for item in items)}</ul>'


def table(rows: list[list[str]], head: list[str], chosen: int | None = None) -> str:
    """A table of texts, which scrolls in a box of its own where it is too wide. A column in which
    nothing is known is left out.

    Args:
      head: titles; that of a column of numbers ends with ' #'. Without any title there is no head.
      chosen: row to highlight.
    """
    known = [i for i in range(len(head)) if any(row[i] != UNKNOWN for row in rows)]
    head, rows = [head[i] for i in known], [[row[i] for i in known] for row in rows]
    numbers = [' class="n"' if title.endswith(" #") else "" for title in head]
    titles = [escape(title.removesuffix(" #")) for title in head]

    def row(texts: list[str], mark: str) -> str:
        cells = zip(texts, numbers, strict=True)
        return f"<tr{mark}>{''.join(f'<td{n}>{escape(text)}</td>' for text, n in cells)}</tr>"

    body = "".join(
        row(texts, ' class="chosen"' if i == chosen else "") for i, texts in enumerate(rows)
    )
    top = "".join(
        f'<th scope="col"{n}>{title}</th>' for title, n in zip(titles, numbers, strict=True)
    )
    above = f"<thead><tr>{top}</tr></thead>" if any(head) else ""
    label = ", ".join(filter(None, titles)) or "facts"
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{label}"><table>'
        f"{above}<tbody>{body}</tbody></table></div>"
    )


def bars(rows: list[tuple[str, float, str]]) -> str:
    """Bars of (name, share of the whole from 0 to 1, the same in words), one below the other."""
    lines = "".join(
        f'<li><span>{escape(name)}</span><span class="n">{escape(words)}</span>'
        f'<i style="width:{100 * min(max(share, 0), 1):.1f}%"></i></li>'
        for name, share, words in rows
    )
    return f'<ul class="bars">{lines}</ul>'


def figure(drawing: str, caption: str) -> str:
    """A figure; `drawing` is HTML (an <svg>), `caption` is text."""
    return f"<figure>{drawing}<figcaption>{escape(caption)}</figcaption></figure>\n"


def pair(*drawings: str) -> str:
    """Figures in two columns, in one on a phone; empty ones are left out."""
    return f'<div class="pair">{"".join(drawings)}</div>' if any(drawings) else ""
