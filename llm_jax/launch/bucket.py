"""The output folder in a bucket of Google Cloud Storage."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from llm_jax.config import UserError
from llm_jax.config.extras import require_packages
from llm_jax.launch.folder import Folder

PART_BYTES = 1 << 17
"""Of a part of a log. A bucket's objects cannot grow: the part that is open is sent anew each time,
and a full one never again."""
AT_ONCE = 10
"""Files that `read_many` reads side by side: as many connections as the client keeps."""


class BucketFolder:
    """Google Cloud Storage. Logs are objects `name.000000`, `name.000001`, … of
    about `PART_BYTES`."""

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

    def read_many(self, names: Sequence[str]) -> dict[str, bytes | None]:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return dict(zip(names, pool.map(self.read, names), strict=True))

    def _list(self, prefix: str, after: str = "") -> list[Any]:
        with _as_os_error():
            found = self.bucket.client.list_blobs(
                self.bucket,
                prefix=self.prefix + prefix,
                start_offset=self.prefix + after if after else None,
                fields="items(name,generation,size),nextPageToken",
            )
            return list(found)

    def names(self, prefix: str, after: str = "") -> dict[str, str]:
        blobs = self._list(prefix.rstrip("/") + "/", after)
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
