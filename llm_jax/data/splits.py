"""Chooses documents to hold out, so that they are the wanted share of the text."""

from __future__ import annotations

from typing import Literal

import numpy as np

BAND = 1.8
"""The share may be this many times more or less than was asked for."""
LEAST_CUT = 1024
"""Documents are cut only for at least this many bytes of validation text."""
ChosenBy = Literal["text", "size", "position", "document"]
"""text: each document by a hash of its own text, so it stays held out when others come or go.
size: in the order of that hash, without those that are too large, until the share is reached.
position: some documents are too large, so the end of each of them is held out.
document: there is too little text to cut, so the smallest document is held out."""


def choose(rank: np.ndarray, sizes: np.ndarray, fraction: float) -> tuple[np.ndarray, ChosenBy]:
    """Documents to hold out, or for "position" those whose end to hold out.

    Args:
      rank: (documents,) uint64, evenly spread, a function of each text alone.
      sizes: (documents,) bytes.
      fraction: wanted share of the bytes, above 0 and at most 0.5.

    Returns:
      (documents,) bool, and how they were chosen. At least one is chosen; all of them only for
      "position".
    """
    total = int(sizes.sum())
    low, wanted, high = total * fraction / BAND, total * fraction, total * fraction * BAND
    chosen = rank < np.uint64(fraction * 2**64)
    if low <= sizes[chosen].sum() <= high:
        return chosen, "text"
    order = np.argsort(rank, kind="stable")
    chosen = _filled(order, sizes, wanted, high)
    if sizes[chosen].sum() < low and len(alone := order[(sizes >= low) & (sizes <= high)][:1]):
        chosen = np.isin(np.arange(len(sizes)), alone)
    if sizes[chosen].sum() >= low:
        return chosen, "size"
    if wanted >= LEAST_CUT or len(sizes) == 1:
        return sizes > high if len(sizes) > 1 else np.ones(1, bool), "position"
    chosen = np.zeros(len(sizes), bool)
    chosen[np.lexsort((rank, sizes))[0]] = True
    return chosen, "document"


def _filled(order: np.ndarray, sizes: np.ndarray, wanted: float, high: float) -> np.ndarray:
    """Documents in `order` that have at most `high` bytes together, until they have `wanted`."""
    chosen = np.zeros(len(sizes), bool)
    taken = 0
    for i in order[sizes[order] <= high]:
        if taken + int(sizes[i]) <= high:
            chosen[i] = True
            taken += int(sizes[i])
        if taken >= wanted:
            break
    return chosen


def cut_place(text: bytes, fraction: float) -> int:
    """Where the last `fraction` of `text` (UTF-8) begins: after a line's end if one is near.

    It is inside the text if that has two characters or more, else 0.
    """
    cut = min(len(text) - round(len(text) * fraction), len(text) - 1)
    newline = text.find(b"\n", cut, cut + (len(text) - cut) // 4)
    if newline >= 0:
        return newline + 1
    while cut > 0 and text[cut] & 0xC0 == 0x80:  # inside a character
        cut -= 1
    return cut
