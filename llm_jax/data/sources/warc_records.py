"""Texts of a WARC file, by warcio: pages (`response`), and texts made of pages (`conversion`)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from llm_jax.data.sources import html_page
from llm_jax.data.sources.encodings import encoding_of
from llm_jax.data.sources.json_records import too_long
from llm_jax.data.sources.left_out import UNREADABLE, LeftOut, Unusable
from llm_jax.data.sources.markup import NO_MAIN_TEXT
from llm_jax.data.sources.pieces import PiecesFile
from llm_jax.data.sources.rows import Row
from llm_jax.data.sources.text_key import OWN

TEXT_KINDS = {"response", "resource", "conversion"}
OTHER_KINDS = {"warcinfo", "request", "metadata", "revisit", "continuation"}
HTML_TYPES = {"text/html", "application/xhtml+xml"}
CHARSET = re.compile(r"charset\s*=\s*[\"']?([\w:.-]+)", re.IGNORECASE)
DAMAGES = (OSError, EOFError, ValueError, AttributeError, TypeError, KeyError, IndexError)
"""What warcio raises for headers that are none, beside its own exceptions."""


def rows(
    pieces: Iterator[bytes],
    fields: Iterable[str],
    encoding: str,
    most: int,
    name: str,
    left_out: LeftOut,
) -> Iterator[Row]:
    """Records with the fields `text`, `url`, `date`, `id`, and those of `html_page.FIELDS`.

    What holds no text (requests, pictures, pages that were not found) is counted in `left_out`
    as skipped, by kind.

    Args:
      fields: the fields that are needed.
      most: largest content of a record in bytes; that of a page is `html_page.MOST_BYTES`.
      name: the file's name, for `left_out`.

    Raises:
      Unusable: the file ends too early (`cut`) or is damaged; the records before have been
        yielded.
    """
    from warcio.archiveiterator import ArchiveIterator
    from warcio.exceptions import ArchiveLoadFailed
    from warcio.statusandheaders import StatusAndHeadersParserException

    class Quiet(ArchiveIterator):
        INC_RECORD = ""  # it goes to stderr

        def _next_record(self, next_line: Any) -> Any:
            try:
                return super()._next_record(next_line)
            except EOFError:  # the end of the file, unless a record has begun
                if next_line:
                    raise Unusable(UNREADABLE, "ends too early", cut=True) from None
                raise

    file = PiecesFile(pieces)
    number = 0
    try:
        for number, record in enumerate(Quiet(file), 1):
            if not (record.rec_headers.get_header("Content-Length") or "").strip().isdecimal():
                raise ValueError("a record without Content-Length")
            if reason := _reason_to_skip(record):
                _drain(record)
                left_out.skip(reason, name, number)
                continue
            try:
                found = _record(record, set(fields), encoding, most)
            except Unusable as error:
                if error.cut:
                    raise
                yield Row(number, error)
                continue
            if found is None:
                left_out.skip(NO_MAIN_TEXT, name, number)
            else:
                yield Row(number, found, is_own=True)
    except (*DAMAGES, ArchiveLoadFailed, StatusAndHeadersParserException) as error:
        if not file.read(1):  # headers that end where the file does
            raise Unusable(UNREADABLE, "ends too early", cut=True) from None
        why = str(error).strip().splitlines() or [type(error).__name__]
        detail = f"damaged WARC behind record {number:,} ({why[0][:150]})"
        raise Unusable(UNREADABLE, detail) from None
    if not file.tail.endswith((b"\r\n\r\n", b"\n\n")):
        raise Unusable(UNREADABLE, "ends too early", cut=True)


def _reason_to_skip(record: Any) -> str:
    """Why a record holds no text; empty if it may."""
    if record.rec_type not in TEXT_KINDS:
        return f"WARC {record.rec_type if record.rec_type in OTHER_KINDS else 'of another kind'}"
    if record.rec_type == "response":
        status = record.http_headers.get_statuscode() if record.http_headers else ""
        if status != "200":
            return "WARC response of another status than 200"
    kind = _content_type(record).partition(";")[0].strip().lower()
    if kind in HTML_TYPES or kind.startswith("text/plain"):
        return ""
    return "WARC record that is not text"


def _content_type(record: Any) -> str:
    headers = record.http_headers if record.rec_type == "response" else record.rec_headers
    return headers.get_header("Content-Type") or ""


def _record(record: Any, fields: set[str], encoding: str, most: int) -> dict[str, Any] | None:
    """The fields of one record; None for a page without main text."""
    kind = _content_type(record)
    is_html = kind.partition(";")[0].strip().lower() in HTML_TYPES
    most = min(most, html_page.MOST_BYTES) if is_html else most
    raw = _content(record, most)
    head = record.rec_headers
    url = head.get_header("WARC-Target-URI") or ""
    own = {
        "url": url,
        "date": head.get_header("WARC-Date"),
        "id": head.get_header("WARC-Record-ID"),
    }
    found = CHARSET.search(kind)
    if not is_html:
        named = encoding if record.rec_type != "conversion" else "utf-8"
        return {OWN: encoding_of(raw[:4], found[1] if found else named).decode(raw)} | own
    html = html_page.decoded(raw, encoding, found[1] if found else "")
    page = html_page.page(html, fields - own.keys(), url)
    return None if page is None else page | own


def _content(record: Any, most: int) -> bytes:
    """The content of a record, decoded as HTTP says; raises `Unusable` if it is too long or cut."""
    parts, size = [], 0
    stream = record.content_stream()
    while part := stream.read(1 << 16):
        size += len(part)
        if size > most:
            raise too_long(most)
        parts.append(part)
    _drain(record)
    return b"".join(parts)


def _drain(record: Any) -> None:
    """Reads what is left of a record; raises `Unusable` if that is less than it says."""
    while record.raw_stream.read(1 << 16):
        pass
    if getattr(record.raw_stream, "limit", 1) > 0:
        raise Unusable(UNREADABLE, "ends too early", cut=True)
