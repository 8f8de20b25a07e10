"""Whatever a file is, its documents are used rightly, or it is left out, counted and named."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import json
import os
import socket
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard
from data_samples import JAPANESE

from llm_jax.config import UserError
from llm_jax.data.sources import FileSource, LeftOut, json_records, left_out, unpack
from llm_jax.data.sources import content as contents

TEXTS = [f"document {i}: {JAPANESE.splitlines()[i % 5]} {os.urandom(30).hex()}" for i in range(400)]
LINES = "".join(json.dumps({"text": text}) + "\n" for text in TEXTS).encode()


def read(path: Path, **settings: Any) -> tuple[list[str], list[dict[str, Any]]]:
    """Texts of the documents, and what left_out.jsonl names."""
    losses = LeftOut()
    texts = [document.text for document in FileSource(path, **settings).documents(losses)]
    listed = path.parent / "listed"
    losses.write(listed)
    entries = [json.loads(line) for line in listed.read_text(encoding="utf-8").splitlines()]
    listed.unlink()
    assert len(entries) == losses.lost.total() + losses.skipped.total()
    return texts, entries


def zstd_frames(texts: bytes, frames: int = 1, **options: Any) -> bytes:
    """Several blocks in each of `frames` frames."""
    out = io.BytesIO()
    size = len(texts) // frames
    for frame in range(frames):
        with zstandard.ZstdCompressor(**options).stream_writer(out, closefd=False) as writer:
            end = None if frame == frames - 1 else (frame + 1) * size
            for start in range(frame * size, end or len(texts), 4096):
                writer.write(texts[start : min(start + 4096, end or len(texts))])
                writer.flush(zstandard.FLUSH_BLOCK)
    return out.getvalue()


@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_lines_before_the_end_of_a_cut_file_are_used(
    tmp_path: Path, suffix: str, frames: int
) -> None:
    size = len(LINES) // frames
    parts = [LINES[i * size : (i + 1) * size if i < frames - 1 else None] for i in range(frames)]
    packed = b"".join(map(gzip.compress, parts)) if suffix == ".gz" else zstd_frames(LINES, frames)
    file = tmp_path / f"shard.jsonl{suffix}"
    file.write_bytes(packed)
    assert read(file) == (TEXTS, [])
    for kept in (len(packed) * 3 // 4, len(packed) - 1):
        file.write_bytes(packed[:kept])
        texts, (entry,) = read(file)
        assert texts == TEXTS[: len(texts)]
        assert 0 < len(texts) <= 400
        assert entry["file"] == str(file) and entry["reason"] == "unreadable file"
        assert f"ends too early; {len(texts)} documents before that are used" == entry["detail"]


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize("kept", [0, 1, 3, 9, -1])
def test_a_text_that_is_cut_is_left_out_whole(tmp_path: Path, suffix: str, kept: int) -> None:
    packed = gzip.compress(b"abc" * 50) if suffix == ".gz" else zstandard.compress(b"abc" * 50)
    (tmp_path / f"a.txt{suffix}").write_bytes(packed[:kept])
    (tmp_path / "b.txt").write_text("whole")
    texts, (entry,) = read(tmp_path)
    assert texts == ["whole"]
    assert (entry["reason"], entry["detail"]) == ("unreadable file", "ends too early")


def test_a_checksum_that_fails_leaves_all_of_a_file_out(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(LINES, 0))  # stored, not compressed: a flip changes one letter
    packed[packed.index(b"document 7:")] ^= 1
    (tmp_path / "a.jsonl.gz").write_bytes(packed)
    packed = bytearray(zstd_frames(LINES, write_checksum=True))
    packed[-1] ^= 1
    (tmp_path / "b.jsonl.zst").write_bytes(packed)
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(LINES) + b"something else behind it")
    texts, entries = read(tmp_path)
    assert texts == []
    assert [entry["reason"] for entry in entries] == ["unreadable file"] * 3
    assert all("cannot be decompressed" in entry["detail"] for entry in entries)


def test_zeros_behind_a_member_and_skippable_frames_are_no_damage(tmp_path: Path) -> None:
    skippable = b"\x50\x2a\x4d\x18" + (70_000).to_bytes(4, "little") + bytes(70_000)
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"one") + bytes(40_000))
    (tmp_path / "b.txt.zst").write_bytes(skippable + zstandard.compress(b"two") + skippable)
    assert read(tmp_path) == (["one", "two"], [])


def test_the_first_bytes_say_how_a_file_is_compressed(tmp_path: Path) -> None:
    for name, content in {
        "a.txt": gzip.compress(b"gzip"),
        "b.jsonl": zstandard.compress(b'{"text": "zstd"}'),
        "c.txt.zst": gzip.compress(b"gzip as zst"),
        "d.txt.gz": b"plain",
    }.items():
        (tmp_path / name).write_bytes(content)
    assert read(tmp_path) == (["gzip", "zstd", "gzip as zst", "plain"], [])


@pytest.mark.parametrize(
    ("name", "content", "detail"),
    [
        ("a.md", b"PK\x03\x04rest", "zip data"),
        ("a.txt", b"%PDF-1.7 text", "pdf data"),
        ("a.jsonl.gz", gzip.compress(gzip.compress(LINES, mtime=0), mtime=0), "compressed twice"),
        ("a.zip", b"any", "an archive (.zip): unpack it, or make it a .tar"),
        ("a.jsonl", gzip.compress(bz2.compress(LINES), mtime=0), "compressed twice"),
        ("a.txt", b"with a \0 inside", "NUL bytes"),
        ("a.txt", "UTF-16".encode("utf-16-le"), "NUL bytes: binary, or UTF-16 without a byte-"),
        ("a.jsonl", LINES.decode().encode("utf-16-be"), "NUL bytes: binary, or UTF-16 without"),
    ],
)
@pytest.mark.parametrize("named", [True, False])
def test_what_is_not_text_is_named(
    tmp_path: Path, name: str, content: bytes, detail: str, named: bool
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).write_bytes(content)
    path = tmp_path / "in" / name if named else tmp_path / "in"
    texts, (entry,) = read(path, encoding="latin-1")
    assert (texts, entry["kind"], entry["reason"]) == ([], "lost", "not text")
    assert entry["detail"].startswith(detail)
    assert entry["file"] == str(tmp_path / "in" / name)


@pytest.mark.parametrize("codec", ["utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("named", ["utf-8", "cp932", "utf-16"])
def test_a_byte_order_mark_says_the_encoding(tmp_path: Path, codec: str, named: str) -> None:
    (tmp_path / "a.txt").write_bytes(("\ufeff" + JAPANESE).encode(codec))
    lines = "\ufeff" + json.dumps({"text": JAPANESE}, ensure_ascii=False) + "\r\n{}\r\n"
    (tmp_path / "b.jsonl").write_bytes(lines.encode(codec))
    texts, (entry,) = read(tmp_path, encoding=named)
    assert texts == [JAPANESE, JAPANESE]
    assert (entry["line"], entry["reason"]) == (2, "no text in 'text'")


@pytest.mark.parametrize("codec", ["utf-16-le", "utf-32-be"])
def test_an_encoding_with_its_byte_order_needs_no_mark(tmp_path: Path, codec: str) -> None:
    (tmp_path / "a.txt").write_bytes(JAPANESE.encode(codec))
    (tmp_path / "b.jsonl").write_bytes(LINES.decode().encode(codec))
    assert read(tmp_path, encoding=codec) == ([JAPANESE, *TEXTS], [])
    texts, entries = read(tmp_path, encoding=codec[:6])
    assert texts == [] and all(f"{codec[:6]}-le or" in entry["detail"] for entry in entries)


@pytest.mark.parametrize("named", ["cp932", "latin-1", "cp1252", "euc_jp"])
def test_utf8_is_not_read_as_another_encoding(tmp_path: Path, named: str) -> None:
    """These bytes are valid in each of these encodings, and give other characters."""
    (tmp_path / "a.txt").write_bytes("テスト".encode())
    (tmp_path / "b.jsonl").write_bytes('{"text": "テスト"}\n{"text": "plain"}\n'.encode())
    (tmp_path / "c.txt").write_bytes("テスト plain".encode("iso2022_jp"))
    texts, entries = read(tmp_path, encoding=named)
    assert texts == ["plain"]
    assert [entry["reason"] for entry in entries] == [f"not {named}"] * 3
    assert "iso2022_jp" in entries[2]["detail"]
    assert read(tmp_path / "c.txt", encoding="iso2022_jp") == (["テスト plain"], [])


def test_files_without_a_record_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"\n \r\n")
    (tmp_path / "b.json").write_bytes(b"[]")
    (tmp_path / "c.json").write_bytes(b"")
    texts, entries = read(tmp_path)
    assert texts == []
    assert [(entry["kind"], entry["reason"]) for entry in entries] == [("skipped", "empty")] * 3


def test_where_an_encoding_fails_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"one\rtwo\r\nthree \x93\xfa\n")
    (tmp_path / "b.txt").write_bytes(codecs.BOM_UTF16_LE + b"odd")
    (tmp_path / "c.jsonl").write_bytes(b'{"text": "good"}\n{"text": "\xff"}\n')
    texts, entries = read(tmp_path)
    assert texts == ["good"]
    assert [entry["reason"] for entry in entries] == ["not utf-8"] * 3
    assert [entry["line"] for entry in entries] == [3, None, 2]
    assert entries[0]["detail"] == "bytes 93"
    assert entries[1]["detail"].startswith("its byte-order mark says utf-16")


@pytest.mark.parametrize("name", ["a.json", "a.json.gz", "a.jsonl.gz", "a.txt", "part-00000"])
@pytest.mark.parametrize(
    "form", ["lines", "CR", "CRLF", "array", "wide array", "array a line", "object", "wide object"]
)
def test_json_in_every_form_under_every_name(tmp_path: Path, name: str, form: str) -> None:
    records = [{"text": text, "n": [1, {}]} for text in TEXTS[:20]]
    lines = [json.dumps(record) for record in records]
    content = {
        "lines": "\n".join(lines),
        "CR": "\r".join(lines),
        "CRLF": "\r\n".join([*lines, "", ""]),
        "array": json.dumps(records),
        "wide array": "\n\n" + json.dumps(records, indent=4),
        "array a line": f"[{lines[0]},\n{lines[1]}]\n",
        "object": lines[0],
        "wide object": json.dumps(records[0], indent=1),
    }[form].encode()
    (tmp_path / "in").mkdir()
    file = tmp_path / "in" / name
    file.write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    wanted = {"array a line": 2, "object": 1, "wide object": 1}.get(form, 20)
    assert read(file) == (TEXTS[:wanted], [])
    if name != "part-00000":
        assert read(tmp_path / "in") == (TEXTS[:wanted], [])


def test_text_that_only_resembles_json_stays_text(tmp_path: Path) -> None:
    for name in ("a.py", "a.md", "b.txt"):
        (tmp_path / name).write_text('{"key": 1} is how it begins')
    (tmp_path / "c.txt").write_text("{text} and [more]")
    texts, entries = read(tmp_path)
    assert texts == ['{"key": 1} is how it begins'] * 3 + ["{text} and [more]"]
    assert entries == []


def test_numbers_and_depths_that_python_refuses(tmp_path: Path) -> None:
    digits, deep = "9" * 5000, "[" * 100_000
    lines = [
        f'{{"text": "long number", "n": {digits}}}',
        f'{{"text": {digits}}}',
        f'{{"text": "broken", "n": {digits}',
        f'{{"text": "deep", "n": {deep}}}',
        "\ufeff" + '{"text": "mark inside"}',
        '{"text": "half \\ud83d"}',
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(lines), encoding="utf-8")
    texts, entries = read(tmp_path)
    assert texts == ["long number", "mark inside", "half \ud83d"]
    assert [(entry["line"], entry["reason"]) for entry in entries] == [
        (2, "no text in 'text'"),
        (3, "line is not JSON"),
        (4, "line is not JSON"),
    ]
    assert entries[2]["detail"] == "nested too deeply"


def test_an_array_that_is_cut_gives_no_documents_it_cannot_trust(tmp_path: Path) -> None:
    whole = json.dumps([{"text": text} for text in TEXTS[:3]], indent=1)
    (tmp_path / "a.json").write_text(whole[: len(whole) // 2])
    texts, entries = read(tmp_path)
    assert texts == []
    assert {entry["reason"] for entry in entries} <= {"line is not JSON", "no text in 'text'"}
    assert [entry["line"] for entry in entries] == list(range(1, len(entries) + 1))


def test_line_ends_on_the_borders_of_pieces() -> None:
    raw = b"a\r\nb\rc\n\r\nd\r"
    wanted = [(1, b"a"), (2, b"b"), (3, b"c"), (4, b""), (5, b"d"), (6, b"")]
    for size in range(1, len(raw) + 1):
        pieces = [raw[i : i + size] for i in range(0, len(raw), size)]
        found = list(json_records.split_lines(pieces, 100))
        assert found[:5] == wanted[:5], size
        assert all(line == b"" for _, line in found[5:])


def test_a_bomb_takes_time_but_no_memory(tmp_path: Path) -> None:
    """One line of 512 MiB in 17 KB; without a bound the same happens with terabytes."""
    packer = zstandard.ZstdCompressor().compressobj()
    parts = [packer.compress(b'{"text": "small"}\n{"text": "')]
    parts += [packer.compress(b"a" * 2**20) for _ in range(512)]
    parts += [packer.compress(b'"}\n{"text": "last"}\n'), packer.flush()]
    bomb = b"".join(parts)
    assert len(bomb) < 20_000
    (tmp_path / "bomb.jsonl.zst").write_bytes(bomb)
    (tmp_path / "bomb.md.zst").write_bytes(bomb)
    tracemalloc.start()
    texts, entries = read(tmp_path, max_bytes=2**25)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**28
    assert texts == ["small", "last"]
    assert [(entry["line"], entry["reason"]) for entry in entries] == [
        (2, "longer than 33,554,432 bytes"),
        (None, "longer than 33,554,432 bytes"),
    ]


def test_a_bomb_of_many_lines_is_left_out_whole(tmp_path: Path, monkeypatch) -> None:
    """Each line is small, so only the expansion tells: 10 KB would be gigabytes on the disk."""
    monkeypatch.setattr(unpack, "FREE_BYTES", 2**22)
    for name, lines in (("bomb", 2**21), ("long", 2**12)):
        packed = zstandard.ZstdCompressor(level=19).compress(b'{"text": "a"}\n' * lines)
        (tmp_path / f"{name}.jsonl.zst").write_bytes(packed)
    texts, entries = read(tmp_path)
    assert len(texts) == 2**12
    (entry,) = entries
    assert entry["file"].endswith("bomb.jsonl.zst")
    assert entry["detail"] == "expands to over 1,000 times its size"


def test_holes_are_not_read(tmp_path: Path) -> None:
    """A terabyte of nothing is left out, also from the fingerprint, at its first bytes."""
    for name, begin in (("a.txt", b"text"), ("b.jsonl", b""), ("c.md", b"text\n" * 1000)):
        (tmp_path / name).write_bytes(begin)
        os.truncate(tmp_path / name, 2**40)
    FileSource(tmp_path).fingerprint()
    texts, entries = read(tmp_path)
    assert texts == []
    assert [entry["reason"] for entry in entries] == [
        "not text",
        "not text",
        "longer than 256,000,000 bytes",
    ]


def test_a_long_first_line_is_a_loss_of_one(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "' + b"a" * 500 + b'"}\n{"text": "short"}\n')
    (tmp_path / "b.txt").write_bytes(b"a" * 101)
    texts, entries = read(tmp_path, max_bytes=100)
    assert texts == ["short"]
    assert [entry["line"] for entry in entries] == [1, None]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder with two texts, beside one with three that can be linked to."""
    for name in ("in/a.txt", "in/sub/b.txt", "real/c.txt", "real/deep/d.txt", "real/deep/e.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path / "in"


def test_linked_folders_are_read_once_and_loops_end(tree: Path) -> None:
    (tree / "more").symlink_to("../real")
    (tree / "again").symlink_to("../real")
    (tree / "sub" / "up").symlink_to("..")
    (tree / "link.txt").symlink_to("../real/c.txt")
    texts, entries = read(tree)
    once = ["in/a.txt", "in/sub/b.txt", "real/deep/d.txt", "real/deep/e.txt"]
    assert sorted(texts) == sorted([*once, "real/c.txt", "real/c.txt"])
    assert [(entry["kind"], entry["reason"]) for entry in entries] == [
        ("skipped", "folder that was read before")
    ] * 2
    assert {Path(entry["file"]).name for entry in entries} == {"more", "up"}


def test_broken_links_pipes_and_sockets_are_named_and_never_opened(tree: Path) -> None:
    (tree / "gone.txt").symlink_to("nowhere.txt")
    (tree / "self.txt").symlink_to("self.txt")
    (tree / "away").symlink_to("/nowhere/folder")
    os.mkfifo(tree / "pipe.txt")
    (tree / "device.txt").symlink_to("/dev/zero")
    (tree / "link.txt").symlink_to("pipe.txt")
    here = Path.cwd()
    os.chdir(tree)  # a socket's path is short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.txt")
        os.chdir(here)
        texts, entries = read(tree)
    assert texts == ["in/a.txt", "in/sub/b.txt"]
    found = {Path(entry["file"]).name: (entry["reason"], entry["detail"]) for entry in entries}
    broken = ("unreadable file", "broken link")
    odd = ("not a regular file", "a pipe, a socket or a device")
    assert found == {
        "gone.txt": broken,
        "self.txt": broken,
        "away": broken,
        "pipe.txt": odd,
        "device.txt": odd,
        "link.txt": odd,
        "socket.txt": odd,
    }
    FileSource(tree).fingerprint()
    assert read(tree / "pipe.txt")[1][0]["reason"] == "not a regular file"


def test_folders_and_files_without_permission(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Permissions are refused by hand: the tests may run as root, who is refused nothing."""
    scandir, open_ = os.scandir, Path.open

    def refused(path: Any) -> Iterator[Any]:
        if Path(path).name == "sub":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    def refused_file(path: Path, *args: Any, **options: Any) -> Any:
        if path.name == "locked.txt":
            raise PermissionError(13, "Permission denied")
        return open_(path, *args, **options)

    (tree / "locked.txt").write_text("secret")
    monkeypatch.setattr(os, "scandir", refused)
    monkeypatch.setattr(Path, "open", refused_file)
    source = FileSource(tree)
    assert source.fingerprint() == source.fingerprint()
    losses = LeftOut()
    assert [document.text for document in source.documents(losses)] == ["in/a.txt"]
    assert losses.lost == {"unreadable file": 1, "unreadable folder": 1}


def test_a_file_that_changes_ends_the_reading(tree: Path) -> None:
    source = FileSource(tree)
    source.fingerprint()
    (tree / "sub" / "b.txt").write_text("another text")
    with pytest.raises(UserError, match=r"b\.txt changed while it was read"):
        list(source.documents(LeftOut()))
    source.fingerprint()
    (tree / "new.txt").write_text("came later")
    with pytest.raises(UserError, match=r"new\.txt changed while it was read"):
        list(source.documents(LeftOut()))


def test_names_that_no_line_of_text_can_hold(tmp_path: Path) -> None:
    for name in (b"caf\xe9.txt", "日本\n.txt".encode(), b"long" * 60 + b".txt"):
        (tmp_path / os.fsdecode(name)).write_bytes(b"\xff")
    texts, entries = read(tmp_path)
    assert texts == []
    names = [r"caf\xe9.txt", "long" * 60 + ".txt", r"日本\x0a.txt"]
    assert [entry["file"] for entry in entries] == [str(tmp_path / name) for name in names]
    losses = LeftOut()
    losses.lose("not utf-8", "a/" * 500, 3, "bytes ff")
    first = losses.summary(0)["reasons"]["not utf-8"]["first"]
    assert len(first) == 201
    assert first.startswith("a/a/") and first.endswith("a/:3: bytes ff")


def test_losses_are_named_up_to_a_bound_and_counted_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(left_out, "LISTED", 10)
    losses = LeftOut()
    for i in range(1, 26):
        losses.lose("line is not JSON", "a.jsonl", i, "why")
    losses.lose("unreadable file", "b.txt")
    losses.write(tmp_path / "left_out.jsonl")
    lines = (tmp_path / "left_out.jsonl").read_text().splitlines()
    *named, last = map(json.loads, lines)
    assert [entry["line"] for entry in named] == [*range(1, 11), None]
    assert last == {"kind": "lost", "reason": "line is not JSON", "not_named": 15}
    assert losses.summary(used=74) == {
        "count": 26,
        "of": 100,
        "reasons": {
            "line is not JSON": {"count": 25, "first": "a.jsonl:1: why"},
            "unreadable file": {"count": 1, "first": "b.txt"},
        },
    }
    losses.check(74)
    strict = LeftOut(strict=True)
    with pytest.raises(UserError, match=r"--strict .*: not utf-8 \(a\.txt:3: bytes ff\)"):
        strict.lose("not utf-8", "a.txt", 3, "bytes ff")


def test_a_head_shorter_than_asked_for_is_put_together(monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = iter([b"ab", b"cd", b"ef"])
    monkeypatch.setattr(contents, "HEAD_BYTES", 3)
    head, again = contents._peek(pieces)
    assert (head, b"".join(again)) == (b"abc", b"abcdef")
