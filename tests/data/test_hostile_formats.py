"""Tables, pages and archives that are damaged, cut, or expand without end."""

from __future__ import annotations

import bz2
import gzip
import importlib.util
import io
import lzma
import os
import random
import tarfile
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest
from data_samples import JAPANESE
from web_samples import page, response, warc

from llm_jax.config import UserError
from llm_jax.data.sources import FileSource, LeftOut, html_page, tables, unpack

TEXTS = [f"document {i}: {JAPANESE.splitlines()[i % 5]}" for i in range(50)]


def read(path: Path, **settings: Any) -> tuple[list[str], LeftOut]:
    left_out = LeftOut()
    return [d.text for d in FileSource(path, **settings).documents(left_out)], left_out


def first(left_out: LeftOut, reason: str = "unreadable file") -> str:
    return left_out.summary(0)["reasons"][reason]["first"]


def parquet(table: pa.Table, **options: Any) -> bytes:
    out = io.BytesIO()
    pq.write_table(table, out, **options)
    return out.getvalue()


def arrow(table: pa.Table, stream: bool) -> bytes:
    out = io.BytesIO()
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(out, table.schema) as writer:
        writer.write_table(table, max_chunksize=10)
    return out.getvalue()


SOUND = {
    "a.parquet": parquet(pa.table({"text": TEXTS}), row_group_size=10),
    "file.arrow": arrow(pa.table({"text": TEXTS}), stream=False),
    "stream.arrow": arrow(pa.table({"text": TEXTS}), stream=True),
}


@pytest.mark.parametrize("name", SOUND)
def test_damaged_tables_never_crash(tmp_path: Path, name: str) -> None:
    """Every cut and 200 random changes: what is used was there, and the rest is a loss."""
    (tmp_path / "b.txt").write_text("sound")
    raw, dice = SOUND[name], random.Random(0)
    damaged = [raw[: len(raw) * i // 20] for i in range(20)]
    for _ in range(200):
        changed = bytearray(raw)
        for _ in range(dice.randrange(1, 5)):
            changed[dice.randrange(len(raw))] = dice.randrange(256)
        damaged.append(bytes(changed))
    lost = 0
    for content in damaged:
        (tmp_path / name).write_bytes(content)
        source, left_out = FileSource(tmp_path), LeftOut()
        source.fingerprint()
        texts = [document.text for document in source.documents(left_out)]
        assert "sound" in texts
        lost += bool(left_out.lost)
    assert lost >= 20  # the cut ones


@pytest.mark.parametrize("name", ["a.parquet", "stream.arrow", "a.csv", "a.csv.gz"])
def test_a_table_without_the_column(tmp_path: Path, name: str) -> None:
    table = pa.table({"title": TEXTS, "body": TEXTS})
    content = {"a.parquet": parquet(table), "stream.arrow": arrow(table, stream=True)}.get(name)
    plain = b"title,body\na,b\n"
    (tmp_path / name).write_bytes(content or (gzip.compress(plain) if ".gz" in name else plain))
    for source in (FileSource(tmp_path), FileSource(tmp_path / name)):
        sentence = r"has no column 'text': it has title, body; name another with --text-key"
        with pytest.raises(UserError, match=sentence):
            source.fingerprint()  # before a text is read
        with pytest.raises(UserError, match=sentence):
            list(source.documents(LeftOut()))
    with pytest.raises(UserError, match="has no column 'url'"):
        FileSource(tmp_path, text_key="body", metadata=("url",)).fingerprint()
    (tmp_path / "b.txt").write_text("another file")
    FileSource(tmp_path).fingerprint()
    texts, left_out = read(tmp_path)
    assert (texts, left_out.lost) == (["another file"], {"no column 'text'": 1})


def test_the_nearest_of_many_columns_is_named(tmp_path: Path) -> None:
    table = pa.table({f"column_{i}": ["x"] for i in range(30)} | {"txt": ["y"]})
    (tmp_path / "a.parquet").write_bytes(parquet(table))
    with pytest.raises(UserError, match=r"it has column_0, .*, …; did you mean 'txt'"):
        FileSource(tmp_path / "a.parquet").fingerprint()


def test_a_text_that_is_not_utf8_is_one_row(tmp_path: Path) -> None:
    bad = pa.StringArray.from_buffers(
        3, pa.py_buffer(b"\0\0\0\0\2\0\0\0\3\0\0\0\5\0\0\0"), pa.py_buffer(b"ab\xffcd")
    )
    (tmp_path / "a.parquet").write_bytes(parquet(pa.table({"text": bad})))
    texts, left_out = read(tmp_path)
    assert (texts, left_out.lost) == (["ab", "cd"], {"not utf-8": 1})
    assert first(left_out, "not utf-8").endswith("a.parquet:2: bytes ff")


def test_a_dictionary_in_every_row_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """500 KB once, in each of 4,000 rows: 2 GB in a file of a few KB."""
    monkeypatch.setattr(unpack, "FREE_BYTES", 2**26)
    monkeypatch.setattr(tables, "FREE_BYTES", 2**26)
    monkeypatch.setattr(tables, "BATCH_BYTES", 2**24)
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 4000, pa.int32()), ["a" * 500_000])
    few = column.slice(0, 20).dictionary_decode()
    (tmp_path / "a.parquet").write_bytes(parquet(pa.table({"text": few})))
    assert len(read(tmp_path)[0]) == 20
    raw = parquet(pa.table({"text": column}), store_schema=False, compression="zstd")
    assert len(raw) < 20_000
    (tmp_path / "a.parquet").write_bytes(raw)
    start = pa.total_allocated_bytes()
    left_out, count, most = LeftOut(), 0, 0
    for _ in FileSource(tmp_path).documents(left_out):
        count, most = count + 1, max(most, pa.total_allocated_bytes() - start)
    assert count * 500_000 < 1000 * len(raw) + 2**26
    assert most < 2**26
    assert first(left_out).endswith("expands to over 1,000 times its size")


def test_an_unclosed_quote_and_a_line_without_end(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('id,text\n1,one\n2,"' + "never closed\n" * 1000)
    texts, left_out = read(tmp_path, max_bytes=1000)
    assert (texts, left_out.lost) == (["one"], {"not CSV": 1})
    assert "field larger than field limit (1000)" in first(left_out, "not CSV")
    (tmp_path / "a.csv").write_bytes(b"id,text\n1,one\n2," + b"a" * 2000)
    texts, left_out = read(tmp_path, max_bytes=1000)
    assert (texts, left_out.lost) == (["one"], {"longer than 1,000 bytes": 1})


def test_csv_in_another_encoding(tmp_path: Path) -> None:
    head = "id,text\n" + "".join(f"{i},line\n" for i in range(2000))
    (tmp_path / "a.csv").write_bytes(head.encode() + "x,日本\n".encode("cp932"))
    texts, left_out = read(tmp_path)
    assert left_out.lost == {"not utf-8": 1}
    assert 1000 < len(texts) <= 2000
    assert f"behind row {len(texts) + 1:,} of the file" in first(left_out, "not utf-8")
    (tmp_path / "a.csv").write_bytes("id,text\n1,日本\n".encode())
    texts, left_out = read(tmp_path, encoding="cp932")
    assert (texts, left_out.lost) == ([], {"not cp932": 1})
    (tmp_path / "a.csv").write_bytes(b"id,text\n1,a\0b\n")
    assert read(tmp_path)[1].lost == {"not text": 1}


def test_a_page_of_a_gigabyte_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_bytes(page("title"))
    os.truncate(tmp_path / "a.html", 2**30)  # a hole: zeros
    (tmp_path / "b.html.gz").write_bytes(gzip.compress(b"<html>" + b"<p>a</p>" * 1_000_000))
    (tmp_path / "c.txt").write_text("sound")
    tracemalloc.start()
    texts, left_out = read(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (texts, left_out.lost) == (["sound"], {"longer than 5,000,000 bytes": 2})
    assert peak < 80_000_000


@pytest.mark.parametrize(
    "html",
    [b"<div>" * 200_000, b"<" * 100_000, b"<table>" * 20_000 + b"text", b"\xff\xfe<html>"],
    ids=["deep", "open", "tables", "mark"],
)
def test_pages_that_no_browser_wrote(tmp_path: Path, html: bytes) -> None:
    (tmp_path / "a.html").write_bytes(html)
    (tmp_path / "b.txt").write_text("sound")
    texts, _ = read(tmp_path)
    assert texts[-1] == "sound"


def test_the_encoding_of_a_page(tmp_path: Path) -> None:
    wrong = page("題").replace(b"utf-8", b"euc-jp")
    assert html_page.decoded("①".encode("cp932"), "utf-8", "shift_jis") == "①"
    assert html_page.decoded("é".encode("cp1252"), "utf-8", "iso-8859-1") == "é"
    assert html_page.decoded("é".encode(), "utf-8", "no-such") == "é"
    assert html_page.decoded("é".encode(), "utf-8", "utf-16") == "é"
    (tmp_path / "a.html").write_bytes(wrong)
    texts, left_out = read(tmp_path)
    assert (texts, left_out.lost) == ([], {"not euc-jp": 1})


@pytest.mark.parametrize("packed", [False, True])
def test_a_warc_that_is_cut_gives_the_records_before(tmp_path: Path, packed: bool) -> None:
    raw, file = warc(gzip=packed), tmp_path / f"a.warc{'.gz' * packed}"
    file.write_bytes(raw)
    whole, left_out = read(file)
    assert left_out.lost == {"not utf-8": 1}
    for size in [*range(1, len(raw), len(raw) // 40), len(raw) - 1, len(raw) - 4]:
        if raw[size:].lstrip(b"\r\n").startswith((b"WARC/1.0", b"\x1f\x8b\x08")):
            continue  # whole records only: nothing shows that there were more
        file.write_bytes(raw[:size])
        texts, left_out = read(file)
        assert texts == whole[: len(texts)]
        assert left_out.lost["unreadable file"] == 1, size
        used = f"; {len(texts)} document" if texts else ""
        assert f": ends too early{used}" in first(left_out)
    assert len(texts) >= 3


def test_warc_headers_that_are_none(tmp_path: Path) -> None:
    raw, dice = warc(gzip=False), random.Random(1)
    (tmp_path / "b.txt").write_text("sound")
    for _ in range(150):
        changed = bytearray(raw)
        for _ in range(20):
            changed[dice.randrange(len(raw))] = dice.choice(b"\0\r\n :-9WA\xff")
        (tmp_path / "a.warc").write_bytes(bytes(changed))
        assert read(tmp_path)[0][-1] == "sound"


def test_a_record_that_expands_is_bounded(tmp_path: Path) -> None:
    from warcio.statusandheaders import StatusAndHeaders
    from warcio.warcwriter import WARCWriter

    out = io.BytesIO()
    writer = WARCWriter(out, gzip=True)
    bomb = gzip.compress(b"a" * 2**27)
    encoded = [("Content-Type", "text/plain"), ("Content-Encoding", "gzip")]
    headers = StatusAndHeaders("200 OK", encoded, protocol="HTTP/1.1")
    writer.write_record(
        writer.create_warc_record(
            "http://a/1", "response", payload=io.BytesIO(bomb), http_headers=headers
        )
    )
    response(writer, "http://a/2", b"behind it", "text/plain")
    (tmp_path / "a.warc.gz").write_bytes(out.getvalue())
    tracemalloc.start()
    texts, left_out = read(tmp_path, max_bytes=2**20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (texts, left_out.lost) == (["behind it"], {"longer than 1,048,576 bytes": 1})
    assert peak < 2**26


def archive(members: dict[str, bytes], mode: str = "w") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as tar:  # type: ignore[call-overload]
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return out.getvalue()


@pytest.mark.parametrize("suffix", ["tar", "tar.gz"])
def test_an_archive_that_is_cut_gives_the_files_before(tmp_path: Path, suffix: str) -> None:
    members = {f"{i:03}.txt": (text * 20).encode() for i, text in enumerate(TEXTS)}
    raw, file = archive(members), tmp_path / f"a.{suffix}"
    with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
        ends = [tar.getmembers()[i].offset for i in (7, 30)]
    for size in [*range(1, len(raw) - 10_240, len(raw) // 30), *ends]:
        file.write_bytes(raw[:size] if suffix == "tar" else gzip.compress(raw)[: -size // 40 - 1])
        texts, left_out = read(file)
        assert texts == [text * 20 for text in TEXTS[: len(texts)]]
        assert left_out.lost["unreadable file"] == 1
    file.write_bytes(raw if suffix == "tar" else gzip.compress(raw))
    texts, left_out = read(file)
    assert (texts, left_out.lost) == ([text * 20 for text in TEXTS], {})


def test_members_that_are_no_files(tmp_path: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for kind, name in ((tarfile.CHRTYPE, "null.txt"), (tarfile.FIFOTYPE, "pipe.txt")):
            member = tarfile.TarInfo(name)
            member.type = kind
            tar.addfile(member)
        inner = archive({"a.txt": b"inside"})
        member = tarfile.TarInfo("inner.tar")
        member.size = len(inner)
        tar.addfile(member, io.BytesIO(inner))
    (tmp_path / "a.tar").write_bytes(out.getvalue())
    texts, left_out = read(tmp_path)
    assert (texts, left_out.lost) == ([], {"not a regular file": 2, "not text": 1})


def test_a_sparse_member_claims_a_terabyte(tmp_path: Path) -> None:
    header = tarfile.TarInfo("huge.txt")
    header.size = 0
    raw = bytearray(header.tobuf(tarfile.GNU_FORMAT)[:512])
    raw[156:157] = tarfile.GNUTYPE_SPARSE
    raw[483:495] = b"\x80" + (2**40).to_bytes(11, "big")
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw)
    (tmp_path / "a.tar").write_bytes(bytes(raw) + bytes(10_240))
    texts, left_out = read(tmp_path)
    assert (texts, left_out.lost) == ([], {"not a regular file": 1})


@pytest.mark.slow
@pytest.mark.parametrize("pack", [bz2.compress, lzma.compress])
def test_bombs_of_other_compressions(tmp_path: Path, pack: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(unpack, "FREE_BYTES", 2**22)
    lines = b'{"text": "a"}\n' * 2**20
    (tmp_path / "a.jsonl").write_bytes(pack(lines))
    (tmp_path / "b.md").write_bytes(pack(b"text " * 2**20))
    tracemalloc.start()
    texts, left_out = read(tmp_path, max_bytes=2**22)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert texts == []
    assert sum(left_out.lost.values()) == 2 and peak < 2**26


@pytest.mark.parametrize("suffix", [".bz2", ".xz"])
def test_damage_in_other_compressions(tmp_path: Path, suffix: str) -> None:
    lines = "".join(f'{{"text": "{text}"}}\n' for text in TEXTS).encode()
    packed = bz2.compress(lines) if suffix == ".bz2" else lzma.compress(lines)
    file = tmp_path / f"a.jsonl{suffix}"
    file.write_bytes(packed[:-2])
    assert "ends too early" in first(read(file)[1])
    file.write_bytes(packed[:50] + b"\0\0" + packed[52:])
    texts, left_out = read(file)
    assert texts == [] and "cannot be decompressed" in first(left_out)
    file.write_bytes(packed + bytes(8) + packed)
    assert len(read(file)[0]) == 2 * len(TEXTS)


def test_a_dictionary_of_xz_that_takes_a_gigabyte(tmp_path: Path) -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 2**30}]
    (tmp_path / "a.txt.xz").write_bytes(lzma.compress(b"small", filters=filters))
    texts, left_out = read(tmp_path)
    assert texts == [] and "Memory usage limit" in first(left_out)


@pytest.mark.parametrize(
    ("name", "package"),
    [("a.parquet", "pyarrow"), ("a.html", "trafilatura"), ("a.warc", "warcio")],
)
def test_a_missing_package_is_named_with_its_extra(
    tmp_path: Path, name: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = {"a.parquet": SOUND["a.parquet"], "a.html": page("t"), "a.warc": warc(gzip=False)}
    (tmp_path / name).write_bytes(contents[name])
    html_page._trafilatura.cache_clear()
    there = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == package else there(name)
    )
    with pytest.raises(UserError, match=rf"needs {package}, .*pip install 'llm-jax\[data\]'"):
        FileSource(tmp_path).fingerprint()
