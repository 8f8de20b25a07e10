"""The main text of an HTML page, by trafilatura, with what the page says of itself."""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Iterable
from types import ModuleType
from typing import Any

from llm_jax.config.extras import require_packages
from llm_jax.data.sources.encodings import Encoding, encoding_of
from llm_jax.data.sources.left_out import Unusable
from llm_jax.data.sources.text_key import OWN

MOST_BYTES = 5_000_000
"""A longer page is left out: trafilatura takes seconds for each megabyte, and a hundred times its
size in memory."""
CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([\w:.-]{1,40})", re.IGNORECASE)
CHARSET_WITHIN = 1024
"""Bytes in which HTML's standard looks for the charset."""
WIDER = {
    "ascii": "cp1252",
    "iso8859-1": "cp1252",
    "shift_jis": "cp932",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "euc_kr": "cp949",
    "iso8859-9": "cp1254",
    "tis-620": "cp874",
}
"""Python's name of an encoding → the larger one that browsers read in its place (WHATWG Encoding,
section 4.2)."""
FIELDS = ("title", "author", "url", "hostname", "sitename", "date", "description", "language")
"""What trafilatura finds beside the text."""


@functools.cache
def _trafilatura() -> ModuleType:
    require_packages("Reading HTML", "trafilatura")
    import trafilatura

    for name in ("trafilatura", "htmldate", "courlan", "justext"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return trafilatura


def decoded(raw: bytes, named: str, charset: str = "") -> str:
    """The text of a page by its byte-order mark, `charset` of HTTP, its `<meta charset>`, or the
    encoding `named` by the user, whichever comes first.

    Raises:
      Unusable: a part is not valid in that encoding.
    """
    by_mark = encoding_of(raw[:4], "utf-8")
    if by_mark.marked:
        return by_mark.decode(raw)
    found = CHARSET.search(raw[:CHARSET_WITHIN])
    for label in (charset, found[1].decode("ascii", "replace") if found else ""):
        if codec := _codec(label):
            return Encoding(codec, label).decode(raw)
    return encoding_of(raw[:4], named).decode(raw)


def _codec(label: str) -> str:
    """Python's codec for an encoding's label in HTML; empty if there is none."""
    import codecs

    try:
        name = codecs.lookup(label.strip()).name if label else ""
        "".encode(name or "utf-8")
    except (LookupError, ValueError):
        return ""
    # A page whose <meta> can be read is not in one of these, whatever it says.
    return "" if name.startswith(("utf-16", "utf-32")) else WIDER.get(name, name)


def page(html: str, fields: Iterable[str], url: str = "") -> dict[str, Any] | None:
    """The page's main text in the field `OWN`, and those of `FIELDS` that are in `fields`.

    Returns:
      None if the page has no main text.

    Raises:
      Unusable: the parser gives up.
    """
    wanted = set(fields) & set(FIELDS)
    trafilatura = _trafilatura()
    try:
        found = trafilatura.bare_extraction(
            html,
            url=url or None,
            favor_precision=True,
            include_comments=False,
            with_metadata=bool(wanted),
        )
    except (ValueError, TypeError, AttributeError, RecursionError, LookupError) as error:
        raise Unusable("unreadable HTML", f"{type(error).__name__}: {error}"[:200]) from None
    if found is None or not (found.text or "").strip():
        return None
    return {OWN: found.text} | {name: getattr(found, name) for name in wanted}
