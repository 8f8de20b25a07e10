"""Which examples are held out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from llm_jax.config import UserError
from llm_jax.data.labelled.records import Example


def two_parts(examples: Sequence[Example], fraction: float) -> dict[str, list[Example]]:
    """Two parts by a hash of the texts, so that equal texts are in one part; none is empty."""
    ranks = [_rank(example) for example in examples]
    order = sorted({*ranks})
    if len(order) < 2:
        raise UserError("There is one example only: give two or more, or --validation FILE.")
    chosen = {rank for rank in ranks if rank < fraction * 2**64} or {order[0]}
    if len(chosen) == len(order):
        chosen.discard(order[-1])
    pairs = list(zip(ranks, examples, strict=True))
    return {
        "train": [example for rank, example in pairs if rank not in chosen],
        "validation": [example for rank, example in pairs if rank in chosen],
    }


def _rank(example: Example) -> int:
    text = json.dumps(example.texts, ensure_ascii=False).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big")
