"""The output folder as a small object store: a local path, or `gs://bucket/prefix`.

Everything that a job knows about itself lives here, so that any machine that can read the folder
can watch, stop or take over the job. Only operations that both stores do atomically are offered.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from llm_jax.config import UserError, open_regular, read_bytes
from llm_jax.config.extras import require_packages
from llm_jax.runs.files import sibling, write_bytes

MOST_BYTES = 1 << 30
"""Of one file; the largest are metrics and code bundles."""
PART_BYTES = 1 << 20  # a bucket's objects cannot grow, so its logs are parts of this size


class Folder(Protocol):
    """Names are relative, with `/` between parts. Every method raises `OSError` on failure."""

    address: str

    def read(self, name: str) -> bytes | None:
        """Content, or None where there is no such name."""

    def write(self, name: str, data: bytes) -> None:
        """Whole replacement: a reader sees the old or the new content, never a mixture."""

    def create(self, name: str, data: bytes) -> bool:
        """Writes only if the name is free; False if it was taken. At most one caller wins."""

    def delete(self, name: str) -> None: ...

    def names(self, prefix: str) -> dict[str, str]:
        """Names below the folder `prefix` → a version that changes with each write."""

    def append(self, name: str, data: bytes) -> None:
        """Adds to a log; one writer per name."""

    def read_log(self, name: str, start: int) -> bytes:
        """What `append` has written to `name` from byte `start` on; empty if nothing."""


def open_folder(address: str) -> Folder:
    """The folder at a local path or a `gs://` address; nothing is created or checked yet."""
    return BucketFolder(address) if address.startswith("gs://") else LocalFolder(address)


def real_path(address: str) -> Path:
    """Absolute, links followed, `~` as the home folder.

    Raises:
      UserError: it begins with the home of somebody who is not known.
    """
    try:
        return Path(os.path.realpath(Path(address).expanduser()))
    except RuntimeError as error:
        raise UserError(
            f"The folder {address!r} cannot be found ({error}): give its path."
        ) from None


class LocalFolder:
    def __init__(self, address: str) -> None:
        self.path = real_path(address)
        self.address = str(self.path)

    def read(self, name: str) -> bytes | None:
        try:
            return read_bytes(self.path / name, MOST_BYTES)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _make_parent(self, name: str) -> None:
        """`launch/` can only be entered by its owner: it holds the environment and the logs."""
        if name.startswith("launch/"):
            self.path.mkdir(parents=True, exist_ok=True)
            (self.path / "launch").mkdir(mode=0o700, exist_ok=True)
        (self.path / name).parent.mkdir(parents=True, exist_ok=True)

    def write(self, name: str, data: bytes) -> None:
        self._make_parent(name)
        write_bytes(self.path / name, data, durable=False)

    def create(self, name: str, data: bytes) -> bool:
        target = self.path / name
        self._make_parent(name)
        temporary = sibling(target)
        try:
            temporary.write_bytes(data)
            # A hard link fails if the name exists, also on NFS, where O_EXCL once did not.
            os.link(temporary, target)
        except FileExistsError:
            return False
        finally:
            temporary.unlink(missing_ok=True)
        return True

    def delete(self, name: str) -> None:
        (self.path / name).unlink(missing_ok=True)

    def names(self, prefix: str) -> dict[str, str]:
        found: dict[str, str] = {}
        for path in sorted((self.path / prefix).rglob("*")):
            try:
                if path.is_file() and not path.name.startswith("."):
                    name = path.relative_to(self.path).as_posix()
                    found[name] = str(path.stat().st_mtime_ns)
            except FileNotFoundError:
                continue  # it was replaced or deleted since it was listed
        return found

    def append(self, name: str, data: bytes) -> None:
        target = self.path / name
        self._make_parent(name)
        with target.open("ab") as file:
            file.write(data)

    def read_log(self, name: str, start: int) -> bytes:
        try:
            with open_regular(self.path / name) as file:
                file.seek(start)
                return file.read()
        except FileNotFoundError:
            return b""


class BucketFolder:
    """Google Cloud Storage. Logs are objects `name.000000`, `name.000001`, … of up to 1 MiB."""

    def __init__(self, address: str) -> None:
        bucket, _, prefix = address.removeprefix("gs://").rstrip("/").partition("/")
        if not bucket or not prefix:
            raise UserError(f"{address!r} names no folder: write gs://bucket/folder.")
        self.address = address.rstrip("/")
        self.prefix = prefix + "/"
        self.bucket = _client(address).bucket(bucket)
        self._open_parts: dict[str, tuple[int, bytes]] = {}

    def _blob(self, name: str) -> Any:
        return self.bucket.blob(self.prefix + name)

    def read(self, name: str) -> bytes | None:
        from google.api_core.exceptions import NotFound

        with _as_os_error():
            try:
                return self._blob(name).download_as_bytes()
            except NotFound:
                return None

    def write(self, name: str, data: bytes) -> None:
        from google.cloud.storage.retry import DEFAULT_RETRY

        # Whole replacement can be repeated, but the client retries it only when told so.
        with _as_os_error():
            self._blob(name).upload_from_string(data, retry=DEFAULT_RETRY)

    def create(self, name: str, data: bytes) -> bool:
        from google.api_core.exceptions import PreconditionFailed

        with _as_os_error():
            try:
                self._blob(name).upload_from_string(data, if_generation_match=0)
            except PreconditionFailed:
                # A retried upload may have met its own first try.
                return self.read(name) == data
            return True

    def delete(self, name: str) -> None:
        from google.api_core.exceptions import NotFound

        with _as_os_error(), contextlib.suppress(NotFound):
            self._blob(name).delete()

    def _list(self, prefix: str) -> list[Any]:
        with _as_os_error():
            return list(self.bucket.client.list_blobs(self.bucket, prefix=self.prefix + prefix))

    def names(self, prefix: str) -> dict[str, str]:
        blobs = self._list(prefix.rstrip("/") + "/")
        return {b.name.removeprefix(self.prefix): str(b.generation) for b in blobs}

    def _parts(self, name: str) -> list[Any]:
        blobs = (b for b in self._list(name + ".") if b.name.rpartition(".")[2].isdigit())
        return sorted(blobs, key=lambda blob: blob.name)

    def append(self, name: str, data: bytes) -> None:
        part, held = self._open_parts.get(name) or self._last_part(name)
        held += data
        self.write(f"{name}.{part:06d}", held)
        if len(held) >= PART_BYTES:
            part, held = part + 1, b""
        self._open_parts[name] = (part, held)

    def _last_part(self, name: str) -> tuple[int, bytes]:
        parts = self._parts(name)
        if not parts:
            return 0, b""
        with _as_os_error():
            return len(parts) - 1, parts[-1].download_as_bytes()

    def read_log(self, name: str, start: int) -> bytes:
        found, seen = [], 0
        for blob in self._parts(name):
            if seen + blob.size > start:
                with _as_os_error():
                    found.append(blob.download_as_bytes()[max(0, start - seen) :])
            seen += blob.size
        return b"".join(found)


@contextlib.contextmanager
def _as_os_error() -> Iterator[None]:
    """The client's own errors as the one kind that users of a folder know."""
    from google.api_core.exceptions import GoogleAPIError
    from google.auth.exceptions import GoogleAuthError

    try:
        yield
    except (GoogleAPIError, GoogleAuthError) as error:
        raise OSError(str(error).splitlines()[0]) from error


def _client(address: str) -> Any:
    require_packages(address, "google.cloud.storage")
    from google.auth.exceptions import DefaultCredentialsError

    storage = importlib.import_module("google.cloud.storage")
    try:
        return storage.Client()
    except DefaultCredentialsError:
        raise UserError(
            f"{address} needs Google Cloud credentials, and there are none: run gcloud auth "
            "application-default login."
        ) from None
    except OSError as error:
        raise UserError(
            f"{address} needs a Google Cloud project ({str(error).splitlines()[0]}): run gcloud "
            "config set project PROJECT."
        ) from None


def check_bucket(folder: Folder) -> str | None:
    """Makes sure that the folder's bucket can rename folders in one step, as checkpoints need.

    Returns:
      A sentence if the bucket's kind could not be seen, None otherwise.

    Raises:
      UserError: it is a flat bucket.
    """
    if not isinstance(folder, BucketFolder):
        return None
    name = folder.bucket.name
    try:
        with _as_os_error():
            folder.bucket.reload()
    except OSError as error:
        return (
            f"could not see whether gs://{name} has a hierarchical namespace, which checkpoints "
            f"need: {error}"
        )
    if not folder.bucket.hierarchical_namespace_enabled:
        raise UserError(
            f"The bucket gs://{name} has no hierarchical namespace, and a checkpoint needs it to "
            "appear in one step: make one with gcloud storage buckets create gs://NAME "
            "--enable-hierarchical-namespace --uniform-bucket-level-access."
        )
    return None


def check_writable(folder: Folder) -> None:
    """Raises `UserError` unless a small object can be created in and deleted from the folder."""
    probe = f"launch/probe-{uuid.uuid4().hex}"
    try:
        folder.create(probe, b"")
        folder.delete(probe)
    except OSError as error:
        raise UserError(
            f"The output folder {folder.address} cannot be written "
            f"({error.strerror or error}): choose another, or change its permissions."
        ) from None
