"""The one description of a batch: its arrays by name.

The pipeline fills these arrays, the mesh splits them along their logical axes, and the compiled
step is made for their shapes. An objective may add arrays to those of packed text.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

Rows = dict[str, np.ndarray]
"""The sequences of one host: name of an array → its rows."""
IGNORED = -1
"""Target that the loss ignores."""


class Array(NamedTuple):
    """One array of a batch."""

    dtype: str
    axes: tuple[str | None, ...]
    """Logical axes (`parallel/mesh.py`): `batch` is B sequences, `length` is T positions. None: an
    axis of `size` elements that no mesh axis splits."""
    size: int = 1

    def shape(self, B: int, T: int) -> tuple[int, ...]:
        """Its shape in a batch of B sequences of T positions."""
        sizes = {"batch": B, "length": T, None: self.size}
        return tuple(sizes[name] for name in self.axes)


TOKENS = Array("int32", ("batch", "length"))
PACKED: dict[str, Array] = {
    "inputs": TOKENS,
    "targets": TOKENS,
    "segments": TOKENS,
    "positions": TOKENS,
}
"""Packed text. `inputs`: token ids. `targets`: the token after each input; -1 where that token
begins another document, so that nothing is trained across documents. `segments`: number of the
document inside the sequence, from 1. `positions`: distance from the document's first token inside
the sequence."""
