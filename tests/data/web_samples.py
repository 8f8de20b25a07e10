"""Pages, and WARC files made of them."""

from __future__ import annotations

import io

from data_samples import JAPANESE
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

PARAGRAPHS = [line.strip() for line in JAPANESE.splitlines()]


def page(title: str, charset: str = "utf-8") -> bytes:
    """A page with a menu, an article and a footer."""
    body = "".join(f"<p>{line}</p>" for line in PARAGRAPHS)
    return (
        f"<html><head><meta charset='{charset}'><title>{title}</title></head><body>"
        f"<nav><a href='/'>トップへ戻る</a></nav><article><h1>{title}</h1>{body}</article>"
        "<footer>無断転載を禁じます</footer></body></html>"
    ).encode(charset)


def response(
    writer: WARCWriter, url: str, payload: bytes, kind: str = "text/html", status: str = "200 OK"
) -> None:
    headers = StatusAndHeaders(status, [("Content-Type", kind)], protocol="HTTP/1.1")
    writer.write_record(
        writer.create_warc_record(
            url,
            "response",
            payload=io.BytesIO(payload),
            http_headers=headers,
            warc_headers_dict={"WARC-Date": "2024-03-01T00:00:00Z"},
        )
    )


def warc(gzip: bool) -> bytes:
    """Three pages, a plain text, a text of a `conversion`, and what holds no text."""
    out = io.BytesIO()
    writer = WARCWriter(out, gzip=gzip)
    writer.write_record(writer.create_warcinfo_record("a.warc", {"software": "test"}))
    response(writer, "http://a.jp/1", page("一"))
    response(writer, "http://a.jp/2", page("二", "shift_jis"), "text/html; charset=Shift_JIS")
    response(writer, "http://a.jp/404", page("無"), status="404 Not Found")
    response(writer, "http://a.jp/p.png", b"\x89PNG", "image/png")
    response(writer, "http://a.jp/menu", b"<html><body></body></html>")
    response(writer, "http://a.jp/3", b"plain text", "text/plain")
    response(writer, "http://a.jp/bad", b"\xff\xfe\xfd plain", "text/plain; charset=utf-8")
    writer.write_record(
        writer.create_warc_record("http://a.jp/1", "request", payload=io.BytesIO(b"GET /"))
    )
    writer.write_record(
        writer.create_warc_record(
            "http://a.jp/wet",
            "conversion",
            payload=io.BytesIO(JAPANESE.encode()),
            warc_content_type="text/plain",
        )
    )
    return out.getvalue()
