"""In which order of their axes a TPU keeps the matrices that an engine reads at each step.

The TPU compiler chooses an order for each product of a loop. Where a matrix is kept in another, a
call copies it before its first step, so for a while memory holds it twice. Left alone, a TPU keeps
the axes as they are written, or with the last two exchanged if that needs less padding.
"""

from __future__ import annotations

from jax.experimental.layout import Format, Layout
from jax.sharding import Sharding

from llm_jax.models.common.parameter import Spec


def as_read(where: Sharding, spec: Spec) -> Sharding | Format:
    """`where`, with the order in which products read a matrix if it is not the usual one."""
    match spec.axes:
        case ("embed", _, "head_dim"):  # queries, keys and values: a head's columns are contiguous
            return Format(Layout((1, 2, 0)), where)
        case ("experts", _, _):  # the grouped product takes rows
            return Format(Layout((0, 1, 2)), where)
        case ("embed", "vocab"):  # in one order for steps and for rounds of drafts
            return Format(Layout((0, 1)), where)
    return where
