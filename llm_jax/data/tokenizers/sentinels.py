"""The ids that stand for hidden spans (Raffel et al. 2020), and the one that a target begins with.

T5's tokenizer has them as `<extra_id_0>`, `<extra_id_1>` …, from the largest id downwards. Of
another tokenizer they are the ids after its own, in the same order.
"""

from __future__ import annotations

import re

import numpy as np

from llm_jax.config import ConfigError, SourceToTarget, TransformerEncoderDecoderConfig
from llm_jax.data.tokenizers.base import Tokenizer

SENTINEL = "<extra_id_{}>"


def own_sentinels(tokenizer: Tokenizer) -> np.ndarray:
    """int32 ids of the tokenizer's own sentinels in their order; none if it has none."""
    special = [name for name in tokenizer.special if re.fullmatch(r"<extra_id_\d+>", name)]
    if not special:
        return np.zeros(0, np.int32)
    found = {name: i for i, name in enumerate(tokenizer.pieces(range(tokenizer.vocab_size)))}
    names = [SENTINEL.format(i) for i in range(len(special))]
    return np.array([found[name] for name in names if name in found], np.int32)


def sentinel_ids(tokenizer: Tokenizer, model: SourceToTarget) -> np.ndarray:
    """int32 ids of all sentinels, `<extra_id_0>` first.

    Raises:
      ConfigError: the model's table of tokens has no room for them.
    """
    own = own_sentinels(tokenizer)
    if len(own):
        return own
    last = tokenizer.vocab_size + model.sentinels
    if last > model.vocab_size:
        raise ConfigError(
            f"model.vocab_size is {model.vocab_size}, but the tokenizer has {tokenizer.vocab_size} "
            f"tokens and model.sentinels is {model.sentinels}: set it to {last} or more."
        )
    return np.arange(last - 1, tokenizer.vocab_size - 1, -1, dtype=np.int32)


def start_id(tokenizer: Tokenizer, model: SourceToTarget) -> int:
    """The id before the first of a target: the padding, as in T5, or else what begins a document;
    with `target_start` "eos", what ends one."""
    if isinstance(model, TransformerEncoderDecoderConfig) and model.target_start == "eos":
        return tokenizer.eos_id
    return tokenizer.pad_id if tokenizer.pad_id >= 0 else tokenizer.bos_id


def sentinel_sentence(tokenizer: Tokenizer, model: SourceToTarget) -> str:
    """What stands for hidden spans, for the output of a run."""
    ids = sentinel_ids(tokenizer, model)
    whose = "the tokenizer's own" if len(own_sentinels(tokenizer)) else "after the tokenizer's"
    return f"hidden spans become {len(ids)} sentinels, ids {ids[0]} down to {ids[-1]}, {whose}"
