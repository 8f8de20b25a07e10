"""BART: `BartForConditionalGeneration`, whose tables of positions begin with two unused rows."""

from __future__ import annotations

import dataclasses

from llm_jax.convert.others.marian import FIXED, MARIAN, TIED, reader

BART = dataclasses.replace(
    MARIAN,
    model_type="bart",
    unused=tuple(TIED),
    fixed=FIXED,
    architecture=lambda config: "BartForConditionalGeneration",
    read=reader(2, 1, 2, {"positions": "learned", "embed_norm": True}),
)
