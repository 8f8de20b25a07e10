"""What a file holds, by its name and its first bytes."""

from __future__ import annotations

import re
from typing import Literal

from llm_jax.data.sources import walk
from llm_jax.data.sources.text_key import TextKey

Format = Literal["text", "json", "csv", "tsv", "html", "warc", "tar", "parquet", "arrow"]
JSON_BEGINS = re.compile(rb'(\xef\xbb\xbf)?\s*(\[\s*)?\{\s*"(?:[^"\\]|\\.)*"\s*:')
WARC_BEGINS = re.compile(rb"WARC/\d\.\d+\r?\n")
HTML_BEGINS = re.compile(rb"(\xef\xbb\xbf)?\s*<(!doctype\s+html|html)[\s>]", re.IGNORECASE)
TABLES: tuple[Format, ...] = ("csv", "tsv", "parquet", "arrow")
"""Formats with named columns, which are known before a row is read."""
ONE_DOCUMENT: tuple[Format, ...] = ("text", "html")
BY_SUFFIX: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    **dict.fromkeys(walk.HTML_SUFFIXES, "html"),
    **dict.fromkeys(walk.WARC_SUFFIXES, "warc"),
    **dict.fromkeys(walk.TAR_SUFFIXES, "tar"),
    **dict.fromkeys(walk.JSON_SUFFIXES, "json"),
}


def format_of(suffix: str, head: bytes, text_key: TextKey) -> Format:
    """The format of content that begins with `head`, in a file with the text suffix `suffix`.

    A format with a mark at its beginning is known by it. A .txt file holds JSON records if it
    begins like one and has the text's fields, one without a known suffix if it begins like one.
    """
    if head.startswith(b"PAR1\x15"):
        return "parquet"
    if head.startswith(b"ARROW1\0"):
        return "arrow"
    if head[257:262] == b"ustar":
        return "tar"
    if WARC_BEGINS.match(head):
        return "warc"
    if suffix in BY_SUFFIX:
        return BY_SUFFIX[suffix]
    if suffix in walk.TEXT_SUFFIXES and suffix != ".txt":
        return "text"
    if JSON_BEGINS.match(head) and (suffix != ".txt" or _has_fields(head, text_key)):
        return "json"
    if suffix != ".txt" and HTML_BEGINS.match(head):
        return "html"
    return "text"


def _has_fields(head: bytes, text_key: TextKey) -> bool:
    roots = {name for path in text_key.fields for name in (path, path.split(".")[0])}
    return any(f'"{name}"'.encode() in head for name in roots)
