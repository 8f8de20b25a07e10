"""Held-out texts as token streams, and the scores of an n-gram model on them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from llm_jax.config import RunConfig, UserError
from llm_jax.data.dataset import TokenDataset
from llm_jax.data.sources import Document, FileSource, LeftOut
from llm_jax.data.sources.left_out import HALF_CHARACTERS, reasons
from llm_jax.data.tokenizers import Tokenizer
from llm_jax.evals import ngram
from llm_jax.evals.score import together

READ = "as many tokens as the run"


def open_datasets(config: RunConfig, tokenizer: Tokenizer) -> dict[str, TokenDataset]:
    """Name of each source of the run's mixture → its dataset; a dataset alone has the name "".

    Raises:
      UserError: one is missing or has another tokenizer.
    """
    found = {}
    for name, path in config.data.folders.items():
        dataset = found[name] = TokenDataset.open(path)
        if dataset.tokenizer.sha256 != tokenizer.sha256:
            raise UserError(
                f"The dataset in {path} has another tokenizer than the run: build it again with "
                f"--tokenizer {config.out}, or evaluate --text."
            )
    return found


def read_texts(
    paths: Iterable[Path], encoding: str, tokenizer: Tokenizer
) -> tuple[dict[str, np.ndarray], LeftOut, int]:
    """Reads text files as token streams. The text is used as it is, without cleaning.

    Returns:
      The stream `<s> document </s> …` of each path, (n,) int32; what was left out; and the number
      of documents used.

    Raises:
      UserError: a path does not exist or has no text.
    """
    left_out, used = LeftOut(), 0
    streams = {}
    for path in paths:
        try:
            source = FileSource(path, encoding)
        except UserError as error:
            raise UserError(str(error).replace("--input", "--text", 1)) from None
        documents = list(_encodable(source.documents(left_out), left_out))
        if not any(documents):
            why = reasons(left_out.summary(used)) or "it is empty"
            raise UserError(f"--text {str(path)!r} has no text ({why}): check it and --encoding.")
        used += len(documents)
        streams[str(path)] = tokenizer.stream(documents)
    return streams, left_out, used


def _encodable(documents: Iterable[Document], left_out: LeftOut) -> Iterator[str]:
    """The texts that are valid Unicode. The others are counted as left out."""
    for document in documents:
        try:
            document.text.encode()
        except UnicodeEncodeError:
            left_out.lose(HALF_CHARACTERS, document.source, document.line)
        else:
            yield document.text


def split_tokens(dataset: TokenDataset, split: str, count: int | None = None) -> np.ndarray:
    """The first `count` tokens of a split's stream (all by default), (n,) int32."""
    end = dataset.num_tokens(split) if count is None else min(count, dataset.num_tokens(split))
    step = 2**20
    parts = [
        dataset.read(split, np.array([start]), min(step, end - start))[0]
        for start in range(0, end, step)
    ]
    return np.concatenate(parts)


def whole_windows(tokens: np.ndarray, seq_len: int) -> np.ndarray:
    """The part of a split that `Evaluator.split` predicts: as many whole windows as there are."""
    return tokens[: (len(tokens) - 1) // seq_len * seq_len + 1]


def _with_begins(tokens: np.ndarray, end: int, begin: int) -> np.ndarray:
    """The stream `| text | text |` as `<s> text | <s> text | <s>`; `<s>` is the id `begin`."""
    made = np.insert(tokens.astype(np.int32), np.flatnonzero(tokens == end) + 1, begin)
    return made[1:] if tokens[0] == end else made


def ngram_figures(
    datasets: Sequence[TokenDataset],
    held_out: Mapping[str, np.ndarray],
    *,
    order: int,
    consumed: Sequence[int],
    shares: Sequence[float] | None = None,
) -> dict[str, Any]:
    """Scores of n-gram models on all of `held_out`, and on each of it, by the text that they were
    trained on.

    Args:
      datasets: what the run has read; one model counts the n-grams of all of them.
      consumed: tokens that the run has read of each. If that is less than all train splits, a
        second model is trained on as many tokens from the start of each, and on no split more
        than once. Documents are in random order.
      shares: of each held-out stream in the score of all; None: by its tokens.
    """
    tokenizer, shared = datasets[0].tokenizer, datasets[0].tokenizer.marks.shared
    begin = tokenizer.vocab_size if shared else tokenizer.bos_id

    def marked(tokens: np.ndarray) -> np.ndarray:
        return _with_begins(tokens, tokenizer.eos_id, begin) if shared else tokens

    whole = [dataset.num_tokens("train") for dataset in datasets]
    read = [min(own, size) for own, size in zip(consumed, whole, strict=True)]
    several = len(datasets) > 1
    sizes = {"whole train splits" if several else "whole train split": whole}
    if read != whole and sum(read) > 1:
        sizes["as many tokens of each source as the run" if several else READ] = read
    figures = {}
    for name, counts in sizes.items():
        parts = [
            split_tokens(dataset, "train", count)
            for dataset, count in zip(datasets, counts, strict=True)
            if count
        ]
        model = ngram.train(
            marked(np.concatenate(parts)),
            order=order,
            vocab_size=tokenizer.vocab_size + shared,
            bos_id=begin,
        )
        scores = {text: model.score(marked(one), tokenizer) for text, one in held_out.items()}
        all_together = together([*scores.values()], shares)
        figures[name] = {"order": order, "trained_tokens": sum(counts), **all_together.report()}
        if len(scores) > 1:
            figures[name]["texts"] = {text: one.report() for text, one in scores.items()}
    return figures
