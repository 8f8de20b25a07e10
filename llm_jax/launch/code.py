"""The bundle of `--code`: which files are sent, searched for secrets, in the same bytes always."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

from llm_jax.config import UserError
from llm_jax.config.wording import counted
from llm_jax.launch.code_secrets import key_file, readable, secrets_of
from llm_jax.launch.folder import MOST_BYTES

MODIFIED = 1580601600
"""Time of every file in the bundle, 2020-02-02: the digest must not depend on a checkout's times,
and zip files know no time before 1980."""
CODE = "code.tar.gz"
"""Name of the bundle in the output folder's `launch/`."""
SHOWN = 3
"""Secrets that a sentence names."""


def files_of(source: Path) -> list[Path]:
    """Files below `source` that git tracks or does not ignore; all, if it is not a repository.

    Raises:
      UserError: there is none, or they are too large together, or git cannot tell which are.
    """
    listed = _tracked(source)
    found = set(source.rglob("*")) if listed is None else {source / name for name in listed}
    # A link could point outside the folder, at a key for instance.
    files = sorted(path for path in found if path.is_file() and not path.is_symlink())
    if not files:
        raise UserError(f"job.code is {str(source)!r}, which holds no files.")
    size = sum(path.stat().st_size for path in files)
    if size > MOST_BYTES:
        raise UserError(
            f"job.code is {str(source)!r}, whose files have {size:,} bytes: a bundle has at most "
            f"{MOST_BYTES:,}, so keep data out of it with .gitignore."
        )
    return files


def _tracked(source: Path) -> list[str] | None:
    """What git tracks or does not ignore below `source`; None if it is not in a repository."""
    argv = ["git", "-C", str(source), "ls-files", "-z", "--cached", "--others"]
    try:
        listed = subprocess.run([*argv, "--exclude-standard"], capture_output=True)
        why = os.fsdecode(listed.stderr).strip().partition("\n")[0]
    except FileNotFoundError:
        listed, why = None, "git is not installed"
    if listed is not None and listed.returncode == 0:
        return [name for name in os.fsdecode(listed.stdout).split("\0") if name]
    # Without git, what .gitignore keeps out would be sent.
    if any(
        (folder / ".git").exists() for folder in (source.absolute(), *source.absolute().parents)
    ):
        raise UserError(
            f"job.code is {str(source)!r}, a git repository whose files git does not list "
            f"({why}): repair that, or name a copy without .git."
        )
    return None


def check_code(source: Path, say: Callable[[str], None]) -> None:
    """Raises `UserError` if a file that would be sent looks like, or holds, a secret; the sentence
    does not repeat it. Says how many files were not searched."""
    found, unread = [], 0
    files = files_of(source)
    for path in files:
        name = path.relative_to(source).as_posix()
        if key_file(path.name):
            found.append(f"{name} (its name says so)")
            continue
        text = readable(path.read_bytes())
        unread += text is None
        found += [f"{name}:{line} ({why})" for line, why in secrets_of(path, text or "")]
    if found:
        shown = ", ".join(found[:SHOWN])
        more = f" and {counted(len(found) - SHOWN, 'other')}" if found[SHOWN:] else ""
        raise UserError(
            f"job.code is {str(source)!r}, in which {shown}{more} look{'s' * (len(found) == 1)} "
            "like a secret, and would go to every host: name the file in .gitignore, or end the "
            "line with `pragma: allowlist secret` if it is meant to be sent."
        )
    searched = counted(len(files) - unread, "file")
    say(f"searched {searched} of {source} for secrets, and passed over {unread} (binary, or large)")


def digest(data: bytes) -> str:
    """SHA-256, as `sha256sum` writes it."""
    return hashlib.sha256(data).hexdigest()


def sums(digests: dict[str, str]) -> str:
    """The digests as `sha256sum --check` reads them."""
    return "".join(f"{one}  {name}\n" for name, one in sorted(digests.items()))


def pack(source: Path) -> bytes:
    """The bundle, a gzipped tar file; equal files make equal bytes.

    Raises:
      UserError: see `files_of`.
    """
    packed = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=packed, mode="wb", mtime=0, filename="") as zipped,
        tarfile.open(fileobj=zipped, mode="w") as tar,
    ):
        for path in files_of(source):
            data = path.read_bytes()
            entry = tarfile.TarInfo(path.relative_to(source).as_posix())
            entry.size, entry.mtime = len(data), MODIFIED
            entry.mode = 0o755 if os.access(path, os.X_OK) else 0o644
            tar.addfile(entry, io.BytesIO(data))
    return packed.getvalue()
