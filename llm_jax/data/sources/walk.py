"""Which files of a folder are read: links are followed, each folder once."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from llm_jax.config import UserError, read_json, require_shape
from llm_jax.data.sources.left_out import NOT_TEXT, UNREADABLE, LeftOut, printable
from llm_jax.data.sources.unpack import COMPRESSED_SUFFIXES

HTML_SUFFIXES = {".html", ".htm", ".xhtml"}
WARC_SUFFIXES = {".warc", ".wet"}
TAR_SUFFIXES = {".tar", ".tgz", ".tbz2", ".txz"}
PROSE = {".txt", ".text", ".md", ".rst", ".org", ".adoc", ".tex"}
SYSTEMS_CODE = {".c", ".h", ".cc", ".cpp", ".hpp", ".cu", ".rs", ".go", ".swift", ".cs", ".java"}
SCRIPTS = {".py", ".pyi", ".js", ".ts", ".jsx", ".tsx", ".rb", ".php", ".pl", ".lua", ".sh", ".sql"}
OTHER_CODE = {".kt", ".scala", ".jl", ".r", ".hs", ".ml"}
TEXT_SUFFIXES = PROSE | SYSTEMS_CODE | SCRIPTS | OTHER_CODE
JSON_SUFFIXES = {".json", ".jsonl", ".ndjson"}
TABLE_SUFFIXES = {".csv", ".tsv", ".parquet", ".arrow", ".feather"}
READ_SUFFIXES = (
    TEXT_SUFFIXES | JSON_SUFFIXES | TABLE_SUFFIXES | HTML_SUFFIXES | WARC_SUFFIXES | TAR_SUFFIXES
)
"""Suffixes of the files of a folder that are read."""
BYTE_CODE = "__pycache__"
CURATION, CURATED_DOCUMENTS = "curation.json", "documents"
"""What a folder that `data curate` wrote has in it."""
UNREAD_SUFFIXES = {".zip", ".7z", ".rar", ".lz4"}
"""Suffixes of files that may hold text, in a form that is not read."""


def text_suffix(name: str) -> str:
    """The suffix before that of a compression, in lower case: `.jsonl` of `a.jsonl.gz`."""
    suffixes = [suffix.lower() for suffix in PurePosixPath(name).suffixes]
    if suffixes and suffixes[-1] in COMPRESSED_SUFFIXES.keys() - TAR_SUFFIXES:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def last_suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


def unread(suffix: str) -> str:
    """The way out for a file with one of `UNREAD_SUFFIXES`."""
    return f"an archive ({suffix}): unpack it, or make it a .tar"


def files(path: Path, left_out: LeftOut) -> Iterator[Path]:
    """`path` itself, or the files of that folder that may be text, in sorted order.

    Links to folders are followed. A folder that has been read before, as in a loop of links, is
    skipped; folders are told apart by device and inode.

    Raises:
      UserError: `data curate` wrote one of the folders inside.
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
        if folder != path:
            refuse_curated(folder)
        subfolders = []
        saved = _saved_by_datasets(entries)
        for entry in entries:
            if saved is not None and entry.name not in saved and not entry.is_dir():
                continue
            kind = _kind(entry, left_out)
            if kind == "folder":
                subfolders.append(Path(folder, entry.name))
            elif kind == "text":
                yield Path(folder, entry.name)
        waiting += reversed(subfolders)


def _saved_by_datasets(entries: list[os.DirEntry[str]]) -> set[str] | None:
    """Names of the tables in a folder that the `datasets` library saved; None if it is another.

    `state.json` names them. What it caches in Arrow files beside them is not part of the set.
    """
    names = {entry.name: entry.path for entry in entries}
    if "dataset_dict.json" in names and "state.json" not in names:
        return set()
    if "state.json" not in names or "dataset_info.json" not in names:
        return None
    try:
        state = read_json(names["state.json"])
        require_shape(state, {"_data_files": [{"filename": str}]})
    except UserError:
        return None
    return {file["filename"] for file in state["_data_files"]}


def refuse_curated(folder: Path) -> None:
    """Raises `UserError` if `data curate` wrote `folder`, which is read as a part of another."""
    if (folder / CURATED_DOCUMENTS).is_dir() and _is_curation(folder / CURATION):
        raise curated_inside(str(folder), "name it as an --input of its own")


def curated_inside(folder: str, way_out: str) -> UserError:
    """The refusal of a `folder` that `data curate` wrote, and that would be read as plain text."""
    return UserError(
        f"{printable(folder)} holds curated documents, with licences and classes of their own, "
        f"which would be lost inside of another source: {way_out}, or move it elsewhere."
    )


def _is_curation(file: Path) -> bool:
    """Whether it is the record of `data curate`, and not another file of that name."""
    if not file.is_file():
        return False
    try:
        require_shape(read_json(file), {"fingerprint": str, "recipe": dict, "shards": list})
    except UserError:
        return False
    return True


def _kind(entry: os.DirEntry[str], left_out: LeftOut) -> str:
    """What an entry is: "folder", "text", or "" if it is left out, which is recorded here."""
    if entry.name == BYTE_CODE:
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
    return "text" if is_read(entry.name, entry.path, left_out) else ""


def is_read(name: str, path: str, left_out: LeftOut) -> bool:
    """Whether the file `name` of a folder may be text, by its suffix; if not, it is recorded as
    left out under its `path`."""
    suffix = text_suffix(name)
    if suffix in UNREAD_SUFFIXES:
        left_out.lose(NOT_TEXT, path, detail=unread(suffix))
    elif suffix not in READ_SUFFIXES:
        left_out.skip("not a text file's suffix", path)
    return suffix in READ_SUFFIXES
