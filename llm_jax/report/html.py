"""Parts of a report page: one self-contained file without scripts or network access."""

from __future__ import annotations

from html import escape

STYLE = """
:root { color-scheme: light; --ink: #1f2933; --soft: #616e7c; --line: #e4e7eb; --accent: #d9480f; }
* { box-sizing: border-box; }
body { margin: 0; background: #f5f7fa; color: var(--ink); line-height: 1.5;
  font: 15px/1.5 system-ui, "Segoe UI", Roboto, "Noto Sans", "Hiragino Sans", sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 36px 28px 64px; background: white; }
header { border-bottom: 3px solid var(--ink); padding-bottom: 16px; margin-bottom: 20px; }
h1 { font-size: 30px; line-height: 1.2; margin: 0 0 6px; letter-spacing: -0.01em; }
h2 { font-size: 19px; margin: 40px 0 10px; }
h3 { font-size: 15px; margin: 0 0 4px; }
p, li { max-width: 84ch; } .soft { color: var(--soft); margin: 0; }
.tiles { display: grid; grid-template-columns: repeat(6, 1fr); gap: 12px; margin: 22px 0; }
.tile { border: 1px solid var(--line); border-radius: 8px; padding: 12px 14px; }
.tile b { display: block; font-size: 22px; font-weight: 650; white-space: nowrap; }
.tile span { color: var(--soft); font-size: 12.5px; display: block; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 20px; }
figure { margin: 0; border: 1px solid var(--line); border-radius: 8px; padding: 14px; }
figure svg { width: 100%; height: auto; }
figcaption { color: var(--soft); font-size: 13px; margin-top: 4px; }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th, td { text-align: left; padding: 6px 10px; border-bottom: 1px solid var(--line);
  vertical-align: top; }
th { font-weight: 600; color: var(--soft); } td.n { text-align: right; white-space: nowrap; }
tr.chosen td { background: #fff4e6; font-weight: 600; }
.warn { background: #fff9db; border-left: 4px solid #f08c00; padding: 10px 18px; margin: 18px 0; }
.warn ul, ul.plain { margin: 4px 0; padding-left: 20px; }
small { color: var(--soft); }
@media (max-width: 860px) { .tiles { grid-template-columns: repeat(2, 1fr); }
  .pair { grid-template-columns: 1fr; } }
@media print { body { background: white; } main { padding: 0; } figure { break-inside: avoid; } }
"""


def document(title: str, sections: list[str]) -> str:
    """The whole page; `sections` are HTML."""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n"
        f"<body><main>{''.join(sections)}</main></body></html>\n"
    )


def section(title: str, body: str) -> str:
    """A section; `title` is text, `body` is HTML."""
    return f"<section><h2>{escape(title)}</h2>{body}</section>\n"


def listing(items: list[str]) -> str:
    """A list of texts."""
    return f'<ul class="plain">{"".join(f"<li>{escape(item)}</li>" for item in items)}</ul>'


def table(rows: list[list[str]], head: list[str], chosen: int | None = None) -> str:
    """A table of texts. A column of numbers has a heading that ends with ' #'.

    Args:
      chosen: row to highlight.
    """
    numeric = [title.endswith(" #") for title in head]

    def cell(text: str, number: bool) -> str:
        return f"<td{' class=n' if number else ''}>{escape(text)}</td>"

    top = "".join(
        f"<th{' style=text-align:right' if number else ''}>{escape(title.removesuffix(' #'))}</th>"
        for title, number in zip(head, numeric, strict=True)
    )
    body = "".join(
        f"<tr{' class=chosen' if i == chosen else ''}>"
        + "".join(cell(text, number) for text, number in zip(row, numeric, strict=True))
        + "</tr>"
        for i, row in enumerate(rows)
    )
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def figure(drawing: str, caption: str) -> str:
    """A figure; `drawing` is HTML (an <svg>), `caption` is text."""
    return f"<figure>{drawing}<figcaption>{escape(caption)}</figcaption></figure>"
