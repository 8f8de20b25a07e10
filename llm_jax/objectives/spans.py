"""Span corruption (Raffel et al. 2020, §3.1.4): an encoder-decoder restores spans of text.

Of each window, `data.mask_rate` of the tokens are hidden in spans of `data.mean_span` on average.
The source has one sentinel in place of each span, the target each sentinel with its span; both end
with the tokenizer's end of a document. As in T5, a window is one text, whatever documents it holds.
What is drawn follows from `data.seed` and the window's number in the order of the run.
"""

from __future__ import annotations

import numpy as np

from llm_jax.config import RunConfig, SourceToTarget, require
from llm_jax.config.data import span_lengths, spans_of
from llm_jax.data.batch import IGNORED, Array, Rows
from llm_jax.data.tokenizers import Tokenizer
from llm_jax.data.tokenizers.sentinels import sentinel_ids, sentinel_sentence, start_id
from llm_jax.objectives.next_token import loss
from llm_jax.objectives.objective import Objective


def spans(config: RunConfig) -> Objective:
    """The objective of a run."""
    data, model = config.data, config.model
    assert isinstance(model, SourceToTarget)
    S, T = span_lengths(data.seq_len, data.mask_rate, data.mean_span)
    multiple = config.parallel.tensor
    return Objective(
        loss,
        pair_arrays(S, -(-T // multiple) * multiple),
        with_tokenizer=lambda tokenizer: _Corruption(config, model, tokenizer),
        notice=lambda tokenizer: sentinel_sentence(tokenizer, model),
    )


def pair_arrays(S: int, T: int) -> dict[str, Array]:
    """The arrays of a source of S tokens and a target of T. Segments are 0 at padding."""
    source, target = (Array("int32", ("batch", None), size) for size in (S, T))
    return {
        "inputs": source,
        "segments": source,
        "decoder_inputs": target,
        "decoder_segments": target,
        "targets": target,
    }


def pair_rows(
    sources: list[np.ndarray], targets: list[np.ndarray], S: int, T: int, start: int, pad: int
) -> Rows:
    """Sources and targets, each with its end, as the arrays of `pair_arrays`.

    Args:
      start: the id before the first of a target.
      pad: the id of padding, which no one sees.
    """
    b = len(sources)
    rows = {
        "inputs": np.full((b, S), pad, np.int32),
        "segments": np.zeros((b, S), np.int32),
        "decoder_inputs": np.full((b, T), pad, np.int32),
        "decoder_segments": np.zeros((b, T), np.int32),
        "targets": np.full((b, T), IGNORED, np.int32),
    }
    for i, (source, target) in enumerate(zip(sources, targets, strict=True)):
        rows["inputs"][i, : len(source)], rows["segments"][i, : len(source)] = source, 1
        rows["decoder_inputs"][i, : len(target)] = [start, *target[:-1]]
        rows["decoder_segments"][i, : len(target)] = 1
        rows["targets"][i, : len(target)] = target
    return rows


class _Corruption:
    """The `prepare` of a run."""

    def __init__(self, config: RunConfig, model: SourceToTarget, tokenizer: Tokenizer) -> None:
        data = config.data
        self._seed, self._arrays = data.seed, spans(config).arrays
        self._hidden, self._spans = spans_of(data.seq_len, data.mask_rate, data.mean_span)
        self._sentinels = sentinel_ids(tokenizer, model)
        self._end, self._start = tokenizer.eos_id, start_id(tokenizer, model)
        require(
            self._spans <= len(self._sentinels),
            f"data.seq_len is {data.seq_len}, of which {self._spans} spans are hidden, but there "
            f"are {len(self._sentinels)} sentinels (model.sentinels): shorten it, raise "
            "data.mean_span, or give more sentinels.",
        )

    def __call__(self, rows: Rows, numbers: np.ndarray) -> Rows:
        """(b, T) packed text → the arrays of a batch."""
        pairs = [
            self.corrupted(tokens, int(number))
            for tokens, number in zip(rows["inputs"], numbers, strict=True)
        ]
        S, T = (self._arrays[name].size for name in ("inputs", "targets"))
        sources, targets = (list(part) for part in zip(*pairs, strict=True))
        made = pair_rows(sources, targets, S, T, self._start, self._start)
        made["targets"][(rows["targets"] == IGNORED).all(axis=1)] = IGNORED
        return made

    def corrupted(self, tokens: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Source and target of one window: text that stays and spans alternate, text first."""
        draw = np.random.Generator(np.random.Philox(key=[self._seed, number]))
        hidden = _parts(draw, self._hidden, self._spans)
        kept = _parts(draw, len(tokens) - self._hidden, self._spans)
        ends = np.cumsum(np.stack([kept, hidden], axis=1).ravel())
        pieces = np.split(tokens, ends[:-1])
        marks = [np.array([i], np.int32) for i in self._sentinels[: self._spans]]
        end = np.array([self._end], np.int32)
        source = [x for pair in zip(pieces[0::2], marks, strict=True) for x in pair]
        target = [x for pair in zip(marks, pieces[1::2], strict=True) for x in pair]
        return np.concatenate([*source, end]), np.concatenate([*target, end])


def _parts(draw: np.random.Generator, total: int, count: int) -> np.ndarray:
    """`count` random sizes from 1 on whose sum is `total`, all divisions equally likely."""
    cuts = np.sort(draw.permutation(total - 1)[: count - 1]) + 1
    return np.diff([0, *cuts, total])
