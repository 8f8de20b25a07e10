"""What nobody should pass: words, JSON values, and files with something wrong.

Everything drawn is plain data with a short `repr`, so that a try can be told and made again.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zstandard
from hypothesis import strategies as st

Strategy = st.SearchStrategy

NUMBERS = (
    "0", "-1", "1", "2", "3", "-0", "0.0", "0.5", "1.0", "1e3", "1_000", " 3", "3 ", "+3", "0x10",
    "007", "3.7", "1e15", "1000000000000000", "2147483647", "2147483648", "4294967296",
    "9223372036854775807", "9223372036854775808", "18446744073709551616", "1180591620717411303424",
    "-2147483649", "-9223372036854775809", "1e19", "1e308", "1e309", "1e-320", "-1e-5", "nan",
    "-nan", "inf", "-inf", "infinity", "NaN", "1e400", "9" * 400, "9" * 5000, "٣", "１２", "²",
    "True", "null", "None", "", " ", "-", "--", ".", "1,5", "1.5B", "70B", "1T", "1E", "E", "1e",
    "3;4", "1/2", "[3]", "{}", "'3'", "1\n2",
)  # fmt: skip
WORDS = (
    "", " ", "\n", "a\nb", "\t", "-", "--", "-x", "--=", "--json=1", "=", "猫", "ﾈｺ", "e\u0301",
    "\u202e", "\x1b[31m", "\x07", "\\", "'", '"', "a" * 255, "a" * 256, "猫" * 85, "a" * 5000,
    "\udcff", "caf\udce9", "\ufeff", "\U0001f600", "%s%n", "{0}", "{name}", "$HOME", "~", "*", "?",
    "..", ".", "None", "null", "nan", "True", "[]", "{}", "utf-8", "utf-16", "idna", "rot13",
    "base64", "hex", "undefined", "utf_8_sig",
)  # fmt: skip
PATHS = (
    "nowhere", "nowhere/deeper/x", "special/null", "special/full", "special/zero", "special/pipe",
    "special/loop", "special/dangling", "special/folder", "special/empty", "special/sparse",
    "special/bytes", "special/猫 の 本", "special/new\nline", "special/-dash", "special/self/x",
    "special/cafe\udce9", "special/" + "n" * 255, "special/" + "n" * 256, "../up", "./", "x/../x",
    "special/folder/", "gs://", "gs://bucket", "gs://bucket/folder", "s3://bucket/x", "x" * 4097,
    "a/" * 1500 + "a", "special/bytes/inside", "-", "--", "",
)  # fmt: skip
"""Relative to the call's folder, in which `make_special` has made `special`; none may lead out of
it, as the tests may run with all permissions."""
NAMES = (
    ".DS_Store", "README", "abc", "9999", "0000.0009", "-1", "1.tmp", "host.x.exit.json",
    "host.9.exit.json", "host.0.log", "status.x.json", "猫.json", "new\nline.json", "n" * 255,
    "cafe\udce9.json", "0000.0002/host.0.exit.json", "x.y/host.0.exit.json", "a.b.c/host.0.json",
    "3/params/x", "99999999999999999999", "run.json.tmp", ".run.json.swp", "model.safetensors",
    "model.safetensors.index.json", "x.jsonl", "x.csv", "x.txt.gz", "x.txt.zst",
)  # fmt: skip
"""Of stray files."""


def numbers() -> Strategy[str]:
    return st.one_of(
        st.sampled_from(NUMBERS),
        st.sampled_from(NUMBERS),
        st.integers(-(1 << 70), 1 << 70).map(str),
        st.floats().map(repr),
    )


def words() -> Strategy[str]:
    """Arguments: any text that the operating system can pass."""
    drawn = st.text(max_size=20).map(_passable)
    return st.one_of(st.sampled_from(WORDS), st.sampled_from(WORDS), drawn)


def _passable(text: str) -> str:
    kept = "".join(c for c in text if c not in "\0/~")
    return kept.encode("utf-8", "replace").decode()


def paths() -> Strategy[str]:
    return st.one_of(st.sampled_from(PATHS), st.sampled_from(PATHS), words())


def json_values() -> Strategy[Any]:
    """Values that a field did not expect; `Raw` is text that `json.dumps` would not write."""
    leaves = st.one_of(
        st.sampled_from(JSON_LEAVES),
        st.sampled_from(JSON_LEAVES),
        st.integers(-(1 << 70), 1 << 70),
        st.floats(),
        st.text(max_size=10),
    )
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner,
                                                                   max_size=3),
        max_leaves=4,
    )  # fmt: skip


JSON_LEAVES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 3, 0.5, -0.0, 1.0, 1e15, 10**15, 1 << 31, 1 << 63, 1 << 70,
    10**400, float("nan"), float("inf"), 1e308, 1e-320, "", "32", "a\0b", "\ud800", "猫", "a\nb",
    "x" * 300, "x" * 5000, "../up", "special/pipe", "special/zero", [], {}, [[]], [None], {"a": 1},
    {"": None}, {"kind": "local"}, {"kind": 3}, {"kind": None}, [1, 2], ["a", "b"],
)  # fmt: skip


@dataclass(frozen=True)
class Damage:
    """One thing done to a file of a world: `how` names a function of this module."""

    file: str
    how: str
    seed: int = 0
    value: Any = None

    def do(self, root: Path) -> None:
        path = root / self.file
        if self.how == "stray":
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(_content(self.seed))
        elif not path.parent.is_dir():
            return  # damaged before
        elif self.how in PLACES:
            if path.is_dir() and not path.is_symlink():
                path.rmdir()
            path.unlink(missing_ok=True)
            PLACES[self.how](path)
        elif path.is_file() and path.stat().st_size < 1 << 30:
            content = path.read_bytes()
            change = JSON_CHANGES.get(self.how)
            changed = (
                change_json(path.name, content, change, self.seed, self.value)
                if change
                else BYTES[self.how](content, random.Random(self.seed))
            )
            path.write_bytes(changed)


def damages(file: str) -> Strategy[Damage]:
    """Of one file, of the kinds that its name suggests."""
    kinds = [st.sampled_from(sorted(BYTES)), st.sampled_from(sorted(PLACES))]
    seeds = st.integers(0, 999)
    plain = st.builds(Damage, st.just(file), st.one_of(kinds), seeds)
    if not file.endswith((".json", ".jsonl", ".safetensors", "metadata", "_METADATA")):
        return plain
    changed = st.builds(
        Damage, st.just(file), st.sampled_from(sorted(JSON_CHANGES)), seeds, json_values()
    )
    return st.one_of(changed, changed, changed, plain)


def strays(folder: str) -> Strategy[Damage]:
    names = st.sampled_from(NAMES).map(lambda name: f"{folder}/{name}")
    return st.builds(Damage, names, st.just("stray"), st.integers(0, 999))


def _content(seed: int) -> bytes:
    return (b"", b"{", b"[]", b"null", b"{}", b"\xff\xfe\0", b'{"step": "x"}', b"text\n")[seed % 8]


BYTES = {
    "emptied": lambda content, rng: b"",
    "cut": lambda content, rng: content[: rng.randrange(max(len(content), 1))],
    "flipped": lambda content, rng: _spliced(content, rng, bytes([rng.randrange(256)]), 1),
    "nul put in": lambda content, rng: _spliced(content, rng, b"\0", 0),
    "not UTF-8": lambda content, rng: _spliced(content, rng, b"\xff\xfe\xe9", 0),
    "chance": lambda content, rng: rng.randbytes(rng.choice((1, 3, 100, 5000))),
    "UTF-16": lambda content, rng: content.decode("utf-8", "replace").encode("utf-16"),
    "BOM": lambda content, rng: b"\xef\xbb\xbf" + content,
    "CR": lambda content, rng: content.replace(b"\n", b"\r"),
    "twice": lambda content, rng: content * 2,
    "nested": lambda content, rng: rng.choice((b"[", b'{"a":')) * 100_000,
    "nested and closed": lambda content, rng: b"[" * 100_000 + b"]" * 100_000,
    "digits": lambda content, rng: b"1" * rng.choice((400, 5000)),
    "list": lambda content, rng: b"[1, 2]",
    "null": lambda content, rng: b"null",
    "text": lambda content, rng: b'"text"',
    "NaN": lambda content, rng: b"NaN",
    "gzip cut": lambda content, rng: gzip.compress(content or b"x", mtime=0)[:-9],
    "gzip": lambda content, rng: gzip.compress(content, mtime=0),
    "zst bomb": lambda content, rng: bomb(),
    "line": lambda content, rng: b"x" * 3_000_000,
    "deletions": lambda content, rng: _spliced(content, rng, b"", rng.randrange(1, 40)),
}


def _spliced(content: bytes, rng: random.Random, new: bytes, gone: int) -> bytes:
    place = rng.randrange(max(len(content), 1))
    return content[:place] + new + content[place + gone :]


def bomb() -> bytes:
    """Some 65 KB of zstd that are one line of 2 GiB."""
    frame = zstandard.ZstdCompressor(level=1).compress(b" " * (64 << 20))
    return frame * 32


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(8 << 30)


PLACES = {
    "missing": lambda path: None,
    "folder": lambda path: path.mkdir(),
    "dangling link": lambda path: path.symlink_to("not-there"),
    "link to itself": lambda path: path.symlink_to(path.name),
    "pipe": lambda path: os.mkfifo(path),
    "zeros": lambda path: path.symlink_to("/dev/zero"),
    "sparse": _sparse,
}


LINKS = {
    "special/null": "/dev/null",
    "special/full": "/dev/full",
    "special/zero": "/dev/zero",
    "special/loop": "loop",
    "special/dangling": "not-there",
    "special/self": ".",
}
"""What is written to a link goes to its target."""


def make_special(folder: Path) -> None:
    """The files that `PATHS` names."""
    folder.mkdir()
    for path, target in LINKS.items():
        (folder.parent / path).symlink_to(target)
    os.mkfifo(folder / "pipe")
    (folder / "folder").mkdir()
    _sparse(folder / "sparse")
    (folder / "empty").write_bytes(b"")
    (folder / "bytes").write_bytes(random.Random(0).randbytes(3000))
    for name in ("猫 の 本", "new\nline", "-dash", "cafe\udce9", "n" * 255):
        (folder / name).write_text("text of a file\n", encoding="utf-8")


Change = str
JSON_CHANGES: dict[str, Change] = {
    name: name for name in ("set", "removed", "added", "doubled", "renamed")
}


def change_json(name: str, content: bytes, change: Change, seed: int, value: Any) -> bytes:
    """`content` with one node changed: of a JSON file, of one line of a JSONL file, or of the
    header of a safetensors file, whose length is made to fit."""
    rng = random.Random(seed)
    if name.endswith(".safetensors") and len(content) > 8:
        size = int.from_bytes(content[:8], "little")
        header = _changed_text(content[8 : 8 + size], change, rng, value)
        return len(header).to_bytes(8, "little") + header + content[8 + size :]
    if name.endswith(".jsonl") and content.strip():
        lines = content.splitlines(keepends=True)
        place = rng.randrange(len(lines))
        lines[place] = _changed_text(lines[place], change, rng, value) + b"\n"
        return b"".join(lines)
    return _changed_text(content, change, rng, value)


def _changed_text(text: bytes, change: Change, rng: random.Random, value: Any) -> bytes:
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError):  # damaged before
        return text
    holders = [node for node in _nodes(tree) if node]
    if not holders:
        return _written(value)
    holder = rng.choice(holders)
    key = rng.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
    if change == "removed":
        del holder[key]
    elif change == "set" or isinstance(holder, list):
        holder[key] = value
    elif change == "renamed":
        holder[f"{key}x"] = holder.pop(key)
    elif change == "added":
        holder["stranger"] = value
    else:  # a key that is there twice
        text = _written(holder[key])
        again = b"{" + _written(key) + b": " + text + b", " + _written(key) + b": "
        holder["\x00here"] = None
        return _written(tree).replace(b'"\\u0000here": null', again[1:] + _written(value), 1)
    return _written(tree)


def _nodes(tree: Any) -> list[Any]:
    if not isinstance(tree, dict | list):
        return []
    inner = tree.values() if isinstance(tree, dict) else tree
    return [tree, *(node for one in inner for node in _nodes(one))]


def _written(value: Any) -> bytes:
    out = io.StringIO()
    json.dump(value, out)
    return out.getvalue().encode()
