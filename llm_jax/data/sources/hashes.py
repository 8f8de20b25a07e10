"""The record of a file that was read: its path, hash and size."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, BinaryIO

from llm_jax.data.sources.left_out import printable


def file_record(name: str | Path, stream: BinaryIO) -> dict[str, Any]:
    """path, sha256 and bytes of the open file `stream`, which is read from where it is."""
    digest = hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]
    size = os.fstat(stream.fileno()).st_size
    return {"path": printable(name), "sha256": digest, "bytes": size}
