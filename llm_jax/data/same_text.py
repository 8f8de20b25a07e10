"""When two texts are the same to a reader. This finds duplicates, and chooses a text's split."""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter
from typing import Any

CONTEXT = 20
"""Characters on each side of the first difference that an example shows."""


def reader_key(text: str) -> bytes:
    """16 bytes that are equal for texts which a reader cannot tell apart.

    Line ends, white space at the ends of lines and of the text, and canonically equivalent
    characters (é as one code point or two: Unicode's NFC) make no difference. Characters that only
    resemble each other (full-width and half-width, ² and 2) do.
    """
    lines = unicodedata.normalize("NFC", text).splitlines()
    same = "\n".join(map(str.rstrip, lines)).strip()
    return hashlib.blake2b(same.encode(), digest_size=16).digest()


def key_number(text: str) -> int:
    """The first 64 bits of `reader_key`."""
    return int.from_bytes(reader_key(text)[:8], "little")


def common_prefix(a: str, b: str) -> int:
    """Length of the common prefix of two strings."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def difference(text: str, back: str) -> dict[str, Any] | None:
    """How `back`, the decoded tokens of `text`, differs from it, as JSON; None if it does not."""
    if text == back:
        return None
    before, after = Counter(text), Counter(back)
    start = max(common_prefix(text, back) - CONTEXT, 0)
    end = start + 2 * CONTEXT
    return {
        "lost": dict(before - after),
        "added": dict(after - before),
        "example": {"was": text[start:end], "became": back[start:end]},
    }
