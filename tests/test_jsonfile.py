"""JSON of others: each thing that can be wrong with it is one sentence that names the file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llm_jax.config import UserError, read_json, read_text


@pytest.mark.parametrize(
    ("content", "value"),
    [
        (b'{"a": [1, 2.5, null]}', {"a": [1, 2.5, None]}),
        (b'\xef\xbb\xbf{"a": 1}', {"a": 1}),
        (b"{}", {}),
        ('"猫"'.encode(), "猫"),
        (b'"\\ud83d\\ude00"', "\U0001f600"),
        (b"[" * 100 + b"]" * 100, eval("[" * 100 + "]" * 100)),
    ],
)
def test_what_is_right_is_read(tmp_path: Path, content: bytes, value: object):
    (tmp_path / "a.json").write_bytes(content)
    assert read_json(tmp_path / "a.json") == value


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"{} {}", "not JSON"),
        (b"\xff\xfe{\x00}\x00", "not UTF-8"),
        (b'{"a": 1, "a": 2}', "'a' twice"),
        (b"[" * 101 + b"]" * 101, "100 levels"),
        (b"[" * 100_000, "100 levels"),
        (b'{"a":' * 100_000, "100 levels"),
        (b"1" * 5000, "not JSON"),
        (b'{"a": 1' + b"0" * 400 + b"}", "'a' a number of 401 digits"),
        (b"[1" + b"0" * 400 + b"]", "a number of 401 digits"),
        (b'["\\ud800"]', "not Unicode"),
        (b'{"\\udcff": 1}', "not Unicode"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, content: bytes, sentence: str):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=sentence) as error:
        read_json(path)
    assert str(path) in str(error.value)


@pytest.mark.timeout(30)
def test_what_is_not_a_file_is_refused_at_once(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zeros").symlink_to("/dev/zero")
    (tmp_path / "loop").symlink_to("loop")
    for name, sentence in (
        ("pipe", "not a regular file"),
        ("zeros", "not a regular file"),
        (".", "directory"),
        ("loop", "cannot be read"),
        ("nowhere", "No such file"),
        ("a\0b", "null byte"),
        ("n" * 300, "too long"),
    ):
        with pytest.raises(UserError, match=sentence):
            read_json(tmp_path / name)


def test_a_file_without_end_is_not_read(tmp_path: Path):
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(UserError, match="1,099,511,627,776 bytes"):
        read_text(tmp_path / "sparse")
