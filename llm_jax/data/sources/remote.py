"""Files behind an address, by fsspec: gs://, s3://, hf://, https://, memory:// and others.

Files are read one at a time (`remote_file.py`).
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from llm_jax.config import UserError, secrets
from llm_jax.config.extras import require_packages
from llm_jax.data.sources import walk
from llm_jax.data.sources.left_out import LeftOut, printable
from llm_jax.data.sources.remote_file import RemoteFile, reason

ADDRESS = re.compile(r"(?:[a-z0-9]+::)*(?!file:|local:)([a-z][a-z0-9+.-]*)://")
PACKAGES = {"gs": "gcsfs", "gcs": "gcsfs", "s3": "s3fs", "s3a": "s3fs", "hf": "huggingface_hub"}
"""Protocol → the package beside fsspec that it needs."""
WEB = ("http", "https")
LOGGERS = ("fsspec", "gcsfs", "s3fs", "aiobotocore", "botocore", "huggingface_hub")
"""They print the tracebacks of errors that are explained here."""
VERSIONS = ("ETag", "etag", "md5Hash", "crc32c", "content_hash", "blob_id")
"""Fields in which file systems say which content a file has."""


def is_address(path: object) -> bool:
    return isinstance(path, str) and ADDRESS.match(path) is not None


def shown(address: str) -> str:
    """The address as provenance and errors have it: without its password, and without the query,
    in which signed addresses have their key."""
    parts = urlsplit(address)
    if parts.scheme not in WEB:
        return printable(secrets.redact(address))
    host = parts.netloc.rpartition("@")[2]
    return printable(urlunsplit((parts.scheme, host, parts.path, "", "")))


def folder_files(address: str, said: str) -> dict[str, RemoteFile]:
    """Name → file, of those right in the folder at `address`.

    Args:
      said: the argument that the user gave it as, for errors.

    Raises:
      UserError: it is no folder with files, it cannot be read, or a package is missing.
    """
    file_system, root = _opened(address, said)
    with _explained(address, said):
        listed = file_system.ls(root, detail=True)
    files = {}
    for info in listed:
        name = PurePosixPath(info["name"]).name
        if info.get("type") == "file" and info["name"].rstrip("/") != root.rstrip("/"):
            path, size = info["name"], info.get("size")
            shown_name = f"{shown(address).rstrip('/')}/{name}"
            files[name] = RemoteFile(file_system, path, shown_name, name, _version(info), size)
    if not files:
        raise UserError(f"{said} '{shown(address)}' has no files: check the address.")
    return files


def remote_files(address: str, left_out: LeftOut) -> Iterator[RemoteFile]:
    """The file at `address`, or those of its folder that may be text; if it has `*`, the files that
    match it and those of the folders that do. In the order of their names.

    Raises:
      UserError: there is none, the address cannot be read, `data curate` wrote a folder of it, or a
        package is missing.
    """
    file_system, root = _opened(address)
    with _explained(address):
        found = _listed(file_system, root, address)
    if not found:
        raise UserError(f"--input '{shown(address)}' does not exist: check the address.")
    _refuse_curated(file_system, found)
    alone = len(found) == 1 and next(iter(found)) == root
    base = root.split("*")[0].rpartition("/")[0] if "*" in root else root
    for path, (info, below) in sorted(found.items()):
        if info.get("type") == "directory":
            continue
        name = shown(file_system.unstrip_protocol(path))
        key = PurePosixPath(path).name if alone else path.removeprefix(base).strip("/")
        if below and not _is_read(below, name, left_out):
            continue
        size = info.get("size")
        yield RemoteFile(file_system, path, name, key, _version(info), size)


def _opened(address: str, said: str = "--input") -> tuple[Any, str]:
    """The file system, and the path in it."""
    found = ADDRESS.match(address)
    assert found is not None
    if "::" in address:
        raise UserError(
            f"{said} '{shown(address)}' joins several addresses: give one, such as gs://bucket/data."
        )
    needed = PACKAGES.get(found[1], "aiohttp" if found[1] in WEB else "fsspec")
    require_packages(f"Reading {found[1]}://", "fsspec", *({needed} - {"fsspec"}))
    import fsspec

    for library in LOGGERS:
        logging.getLogger(library).setLevel(logging.CRITICAL)
    if found[1] not in fsspec.available_protocols():
        raise UserError(
            f"{said} '{shown(address)}' has the protocol {found[1]!r}, which fsspec does not "
            "know: use gs, s3, hf, https or another of its own."
        )
    with _explained(address, said):
        return fsspec.core.url_to_fs(address)


Found = dict[str, tuple[dict[str, Any], str]]
"""Path → what the file system says of it, and its name below the folder that the address names;
empty if it names the file itself, which is read whatever its suffix."""


def _listed(file_system: Any, root: str, address: str) -> Found:
    if "*" in root:
        return _matched(file_system, root)
    if ADDRESS.match(address)[1] in WEB:  # type: ignore[index]
        is_folder = root.endswith("/")
        info = {"type": "directory"} if is_folder else file_system.info(root)
    else:
        info = file_system.info(root)
    return _below(file_system, root) if info["type"] == "directory" else {root: (info, "")}


def _below(file_system: Any, folder: str) -> Found:
    files = file_system.find(folder, detail=True)
    return {path: (info, path.removeprefix(folder).strip("/")) for path, info in files.items()}


def _matched(file_system: Any, pattern: str) -> Found:
    """As on a disk, `*` matches no hidden name, and a folder that matches stands for its files."""
    matches = file_system.glob(pattern, detail=True)
    matches = {path: info for path, info in matches.items() if not _hides(path, pattern)}
    folders = [path for path, info in matches.items() if info.get("type") == "directory"]
    found: Found = {}
    for folder in folders:
        found |= _below(file_system, folder)
    return found | {path: (info, "") for path, info in matches.items() if path not in folders}


def _hides(path: str, pattern: str) -> bool:
    """Whether a part of `path` that the pattern does not spell out is hidden."""
    spelled = set(PurePosixPath(pattern).parts)
    return any(
        part.startswith(".") and part not in spelled for part in PurePosixPath(path).parts
    ) and not any(part.startswith(".") and "*" in part for part in spelled)


def _refuse_curated(file_system: Any, found: Found) -> None:
    """Raises `UserError` if a folder of `found` is one that `data curate` wrote."""
    folders = {path.rpartition("/")[0] for path in found}
    for path in found:
        folder, _, name = path.rpartition("/")
        if name == walk.CURATION and f"{folder}/{walk.CURATED_DOCUMENTS}" in folders:
            where = shown(file_system.unstrip_protocol(folder))
            raise walk.curated_inside(where, "copy it to this machine and name it there")


@contextlib.contextmanager
def _explained(address: str, said: str = "--input") -> Iterator[None]:
    """Turns what a file system's library raises into one sentence."""
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError as error:
        cause = error.__cause__  # HTTP's file system says so of every failure
        if cause is not None and getattr(cause, "status", None) != 404:
            raise _unreadable(address, cause, said) from None
        raise UserError(f"{said} '{shown(address)}' does not exist: check the address.") from None
    except ImportError as error:
        raise UserError(
            f"{said} '{shown(address)}' needs a package that is not installed ({error}): install "
            "it."
        ) from None
    except Exception as error:  # each library has its own
        raise _unreadable(address, error, said) from None


def _unreadable(address: str, error: BaseException, said: str) -> UserError:
    return UserError(
        f"{said} '{shown(address)}' cannot be read ({reason(error)}): check the address, the "
        "network, and that credentials are set where its library looks for them."
    )


def _is_read(key: str, name: str, left_out: LeftOut) -> bool:
    parts = PurePosixPath(key).parts
    if walk.BYTE_CODE in parts:
        return False
    if any(part.startswith(".") for part in parts):
        left_out.skip("hidden", name)
        return False
    return walk.is_read(parts[-1] if parts else "", name, left_out)


def _version(info: dict[str, Any]) -> str:
    """What says which content a file has; empty if nothing does."""
    pointer = info.get("lfs")  # of Hugging Face: the file's own hash
    for value in (getattr(pointer, "sha256", None), *(info.get(name) for name in VERSIONS)):
        if value:
            return str(value)
    return ""
