"""Which token stands for one that is hidden, and which tokens may be hidden."""

from __future__ import annotations

import numpy as np

from llm_jax.config import ConfigError
from llm_jax.data.tokenizers.base import Tokenizer

MASKS = ("[MASK]", "<mask>")
"""Names of a token that is made for it."""
SPARE = ("<unk>", "[UNK]", "<pad>", "[PAD]")
"""Names of tokens that take its place where there is none: text does not become them if unknown
characters become bytes."""


def mask_id(tokenizer: Tokenizer) -> int:
    """The id that stands for a hidden token: the tokenizer's own, or else `<unk>` or `<pad>`.

    Raises:
      ConfigError: the tokenizer has none of them.
    """
    special = np.flatnonzero(tokenizer.token_bytes == 0)
    marks = (tokenizer.bos_id, tokenizer.eos_id)
    spelled = dict(zip(tokenizer.pieces(special), special.tolist(), strict=True))
    for name in (*MASKS, *SPARE):
        if name in spelled and spelled[name] not in marks:
            return spelled[name]
    raise ConfigError(
        "The tokenizer has no token that could stand for a hidden one "
        f"({', '.join((*MASKS, *SPARE))}): add a special token [MASK] to its tokenizer.json, or "
        "train one with `llm-jax tokenizer train`."
    )


def mask_sentence(tokenizer: Tokenizer) -> str:
    """What stands for a hidden token, for the output of a run."""
    number = mask_id(tokenizer)
    (name,) = tokenizer.pieces([number])
    own = name in MASKS
    return f"hidden tokens become {name!r}, id {number}" + (
        "" if own else ": the tokenizer has no mask token"
    )
