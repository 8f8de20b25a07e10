"""Plain text of a text with markup."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from llm_jax.data import aozora
from llm_jax.data.sources.left_out import LeftOut, Unusable

NO_MAIN_TEXT = "page without main text"
Markup = Literal["none", "aozora", "html"]
"""aozora: ruby and notes of Aozora Bunko. html: all but the page's main text."""


def plain(text: str, markup: Markup) -> str | None:
    """`text` without its markup; None if nothing is left of a page.

    Raises:
      Unusable: it is HTML that the parser gives up.
      UserError: `markup` needs a package that is not installed.
    """
    if markup == "aozora":
        return aozora.plain_text(text.replace("\r\n", "\n").replace("\r", "\n"))
    if markup == "html":
        from llm_jax.data.sources import html_page

        page = html_page.page(text, ())
        return None if page is None else page[html_page.OWN]
    return text


def used_text(
    get: Callable[[], str], markup: Markup, left_out: LeftOut, source: str, line: int | None = None
) -> str | None:
    """The plain text of what `get` returns; None if there is none, which is recorded."""
    try:
        text = plain(get(), markup)
    except Unusable as error:
        left_out.lose(error.reason, source, line, error.detail)
        return None
    if text is None:
        left_out.skip(NO_MAIN_TEXT, source, line)
    return text
