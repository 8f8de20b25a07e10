"""Which files of a folder are read: links are followed, each folder once."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from llm_jax.data.sources.left_out import NOT_TEXT, UNREADABLE, LeftOut
from llm_jax.data.sources.unpack import COMPRESSED_SUFFIXES

PROSE = {".txt", ".text", ".md", ".rst", ".org", ".adoc", ".tex"}
SYSTEMS_CODE = {".c", ".h", ".cc", ".cpp", ".hpp", ".cu", ".rs", ".go", ".swift", ".cs", ".java"}
SCRIPTS = {".py", ".pyi", ".js", ".ts", ".jsx", ".tsx", ".rb", ".php", ".pl", ".lua", ".sh", ".sql"}
OTHER_CODE = {".kt", ".scala", ".jl", ".r", ".hs", ".ml"}
TEXT_SUFFIXES = PROSE | SYSTEMS_CODE | SCRIPTS | OTHER_CODE
JSON_SUFFIXES = {".json", ".jsonl", ".ndjson"}
TABLES = {".csv", ".tsv", ".parquet", ".arrow", ".feather"}
ARCHIVES = {".tar", ".tgz", ".zip", ".7z", ".rar", ".bz2", ".xz", ".lz4"}
UNREAD_SUFFIXES = TABLES | ARCHIVES
"""Suffixes of files that may hold text, in a form that is not read."""


def text_suffix(file: Path) -> str:
    """The suffix before that of a compression, in lower case: `.jsonl` of `a.jsonl.gz`."""
    suffixes = [suffix.lower() for suffix in file.suffixes]
    if suffixes and suffixes[-1] in COMPRESSED_SUFFIXES:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def unread(suffix: str) -> str:
    """The way out for a file with one of `UNREAD_SUFFIXES`."""
    kind = "a table" if suffix in TABLES else "an archive"
    return f"{kind} ({suffix}): write its texts to .jsonl or .txt files"


def files(path: Path, left_out: LeftOut) -> Iterator[Path]:
    """`path` itself, or the files of that folder that may be text, in sorted order.

    Links to folders are followed. A folder that has been read before, as in a loop of links, is
    skipped; folders are told apart by device and inode.
    """
    if not path.is_dir():
        yield path
        return
    seen: set[tuple[int, int]] = set()
    waiting = [path]
    while waiting:
        folder = waiting.pop()
        try:
            status = folder.stat()
            with os.scandir(folder) as scan:
                entries = sorted(scan, key=lambda entry: entry.name)
        except OSError as error:
            left_out.lose("unreadable folder", str(folder), detail=error.strerror or str(error))
            continue
        if (status.st_dev, status.st_ino) in seen:
            left_out.skip("folder that was read before", str(folder))
            continue
        seen.add((status.st_dev, status.st_ino))
        subfolders = []
        for entry in entries:
            kind = _kind(entry, left_out)
            if kind == "folder":
                subfolders.append(Path(folder, entry.name))
            elif kind == "text":
                yield Path(folder, entry.name)
        waiting += reversed(subfolders)


def _kind(entry: os.DirEntry[str], left_out: LeftOut) -> str:
    """What an entry is: "folder", "text", or "" if it is left out, which is recorded here."""
    if entry.name == "__pycache__":  # byte code
        return ""
    if entry.name.startswith("."):
        left_out.skip("hidden", entry.path)
        return ""
    try:
        if entry.is_symlink():
            mode = entry.stat().st_mode
            is_folder, is_file = stat.S_ISDIR(mode), stat.S_ISREG(mode)
        else:
            is_folder, is_file = entry.is_dir(), entry.is_file()
    except OSError as error:
        gone = "broken link" if entry.is_symlink() else error.strerror or str(error)
        left_out.lose(UNREADABLE, entry.path, detail=gone)
        return ""
    if is_folder:
        return "folder"
    if not is_file:
        left_out.lose("not a regular file", entry.path, detail="a pipe, a socket or a device")
        return ""
    suffix = text_suffix(Path(entry.name))
    if suffix in UNREAD_SUFFIXES:
        left_out.lose(NOT_TEXT, entry.path, detail=unread(suffix))
        return ""
    if suffix not in TEXT_SUFFIXES | JSON_SUFFIXES:
        left_out.skip("not a text file's suffix", entry.path)
        return ""
    return "text"
