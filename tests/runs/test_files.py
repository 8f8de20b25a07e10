"""A path is written whole or not at all, and nothing is left beside it."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from limits import files_of_at_most

from llm_jax.runs.files import new_folder, replacing, scratch, write_bytes, write_text

Write = Callable[[Path, bytes], None]


def in_a_folder(out: Path, data: bytes) -> None:
    with new_folder(out, replace=True) as made:
        (made / "inner").mkdir()
        (made / "inner" / "file").write_bytes(data)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_new_takes_the_place_of_the_old(tmp_path: Path) -> None:
    for text in ("old", "new"):
        write_text(tmp_path / "made" / "file.json", text)
        in_a_folder(tmp_path / "folder", text.encode())
    assert (tmp_path / "made" / "file.json").read_text() == "new"
    assert (tmp_path / "folder" / "inner" / "file").read_text() == "new"
    assert names(tmp_path) == ["folder", "made"]
    assert names(tmp_path / "made") == ["file.json"]


@pytest.mark.parametrize("write", [write_bytes, in_a_folder])
def test_a_failed_write_leaves_the_old_alone(write: Write, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(out, b"old")
    before = sorted(tmp_path.rglob("*"))
    for path in (out, tmp_path / "new" / "deep" / "out"):
        with pytest.raises(OSError, match="File too large"), files_of_at_most(1000):
            write(path, bytes(2000))
    assert sorted(tmp_path.rglob("*")) == before
    assert (out if out.is_file() else out / "inner" / "file").read_bytes() == b"old"


def test_only_what_may_be_replaced_is(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(OSError, match="not empty"), new_folder(tmp_path / "out") as made:
        (made / "file").write_text("new")
        (tmp_path / "out" / "file").write_text("of another program")
    assert (tmp_path / "out" / "file").read_text() == "of another program"
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("place", ["a/b", "a/../b", "a/../b/c/d"])
@pytest.mark.parametrize("context", [replacing, new_folder, scratch])
def test_an_interrupt_leaves_nothing(context: Callable, place: str, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), context(tmp_path / place) as made:
        if context is replacing:
            made.write_text("half")
        raise KeyboardInterrupt
    assert names(tmp_path) == []


@pytest.mark.parametrize(("mask", "file", "folder"), [(0o022, 0o644, 0o755), (0o027, 0o640, 0o750)])
def test_permissions_are_those_of_the_umask(
    mask: int, file: int, folder: int, tmp_path: Path
) -> None:
    before = os.umask(mask)
    try:
        write_text(tmp_path / "file", "")
        in_a_folder(tmp_path / "folder", b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == file
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == folder


def test_the_longest_names_can_be_written(tmp_path: Path) -> None:
    longest = ["x" * 255, "名" * 85, "x" * 250 + ".json", "." + "y" * 254]
    for name in longest:
        write_text(tmp_path / name, name)
        assert (tmp_path / name).read_text() == name
    in_a_folder(tmp_path / ("f" * 255), b"")
    assert len(names(tmp_path)) == 5


def test_the_figure_keeps_its_suffix(tmp_path: Path) -> None:
    with replacing(tmp_path / "figure.png") as temporary:
        assert temporary.suffix == ".png" and temporary.name.startswith(".")
        temporary.touch()


def test_links_are_followed_and_devices_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "link.json"
    link.symlink_to("elsewhere/file.json")
    write_text(link, "text")
    assert link.is_symlink() and (tmp_path / "elsewhere" / "file.json").read_text() == "text"
    (tmp_path / "null").symlink_to("/dev/null")
    write_text(tmp_path / "null", "text")
    assert Path("/dev/null").is_char_device()
    with pytest.raises(IsADirectoryError):
        write_text(tmp_path / "elsewhere", "text")
    assert names(tmp_path) == ["elsewhere", "link.json", "null"]
