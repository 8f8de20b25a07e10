"""Reads a page as a browser would, for tests."""

from __future__ import annotations

import re
from html.parser import HTMLParser


class Page(HTMLParser):
    """The rows, texts and attributes of a page. A row is that of a table or of a list of bars."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html, self.tags = html, list[str]()
        self.attributes: list[tuple[str, str]] = []
        self.rows: list[list[str]] = [[]]
        self.text, self._in_cell = "", False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag in ("tr", "li"):
            self.rows.append([])
        if tag in ("td", "span"):
            self.rows[-1].append("")
            self._in_cell = True

    def handle_endtag(self, tag: str) -> None:
        self._in_cell = self._in_cell and tag not in ("td", "span")

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._in_cell:
            self.rows[-1][-1] += data

    def row(self, name: str) -> list[str]:
        return next(row[1:] for row in self.rows if row[:1] == [name])

    def check_that_it_is_alone(self) -> None:
        """It has no scripts, and refers to nothing outside of itself."""
        links = [value for name, value in self.attributes if re.search("src|href|action", name)]
        assert links and all(value.startswith("#") for value in links)
        styles = " ".join([self.html, *(value for name, value in self.attributes)])
        assert "url(" not in styles.replace("url(#", "") and "@import" not in styles
        assert not {"script", "iframe", "object", "embed", "link", "img"} & set(self.tags)
