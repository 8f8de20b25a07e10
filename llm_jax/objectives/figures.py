"""Figures of held-out examples beside the loss. All are from 0 to 1, `spearman` from -1."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from llm_jax.config import EncoderConfig, ModernEncoderConfig, RunConfig
from llm_jax.data.batch import Rows

LONGEST_ANSWER = 30
"""Tokens."""
BLOCK = 1024
"""Texts whose cosines are computed at a time."""


def classify_figures(rows: Rows, config: RunConfig) -> dict[str, float]:
    """`accuracy`, and `macro_f1`: the mean of the F1 of each label that occurs or is predicted."""
    there = rows["targets"] >= 0
    return _of_labels(rows["targets"][there], rows["predicted"][there])


def _of_labels(targets: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    if not len(targets):
        return {}
    scores = [
        _f1(
            int(np.sum((predicted == label) & (targets == label))),
            int(np.sum(predicted == label)),
            int(np.sum(targets == label)),
        )
        for label in np.union1d(targets, predicted)
    ]
    return {
        "accuracy": float(np.mean(targets == predicted)),
        "macro_f1": float(np.mean(scores)),
    }


def _f1(right: int, predicted: int, wanted: int) -> float:
    return 2 * right / (predicted + wanted) if predicted + wanted else 0.0


def tag_figures(rows: Rows, config: RunConfig) -> dict[str, float]:
    """`accuracy` of words; `entity_f1` if all tags are O, B-x or I-x, else `macro_f1`."""
    targets, predicted = rows["targets"], rows["predicted"]
    there = targets >= 0
    figures = _of_labels(targets[there], predicted[there])
    assert isinstance(config.model, EncoderConfig | ModernEncoderConfig)
    labels = config.model.labels
    if not figures or not are_entities(labels):
        return figures
    del figures["macro_f1"]
    counts: Counter[str] = Counter()
    for wanted_T, made_T, there_T in zip(targets, predicted, there, strict=True):
        wanted, made = (
            {*entities([labels[i] for i in row[there_T]])} for row in (wanted_T, made_T)
        )
        counts.update(right=len(wanted & made), wanted=len(wanted), made=len(made))
    return figures | {"entity_f1": _f1(counts["right"], counts["made"], counts["wanted"])}


def are_entities(labels: Iterable[str]) -> bool:
    """Whether the labels are those of entities: O, and B-x or I-x."""
    return all(label == "O" or label[:2] in ("B-", "I-") for label in labels)


def entities(tags: Sequence[str]) -> list[tuple[str, int, int]]:
    """Kind, first and last word of each entity. It begins at B-x, and at I-x behind another kind
    (the rule of the CoNLL-2003 evaluation)."""
    found, before = list[tuple[str, int, int]](), "O"
    for i, tag in enumerate(tags):
        goes_on = tag[:2] == "I-" and before[:2] in ("B-", "I-") and before[2:] == tag[2:]
        if goes_on:
            found[-1] = (*found[-1][:2], i)
        elif tag != "O":
            found.append((tag[2:], i, i))
        before = tag
    return found


def answer_figures(rows: Rows, config: RunConfig) -> dict[str, float]:
    """`exact_match` of first and last token, and `f1` of the tokens of both spans (Rajpurkar et al.
    2016, of tokens by their places). Where there is no answer, both are 1 if none is found."""
    exact, overlap = list[float](), list[float]()
    for logits, wanted, size, second in zip(
        rows["logits"], rows["targets"], rows["size"], rows["second"], strict=True
    ):
        if wanted[0] < 0:
            continue
        made = best_span(logits, int(second), int(size) - 1)
        exact.append(float(made == (wanted[0], wanted[1])))
        common = min(made[1], wanted[1]) - max(made[0], wanted[0]) + 1
        sizes = made[1] - made[0] + 1, wanted[1] - wanted[0] + 1
        overlap.append(_f1(max(int(common), 0), int(sizes[0]), int(sizes[1])))
    return {"exact_match": float(np.mean(exact)), "f1": float(np.mean(overlap))} if exact else {}


def best_span(logits_2T: np.ndarray, first: int, end: int) -> tuple[int, int]:
    """First and last token of the likeliest answer of at most `LONGEST_ANSWER` tokens among the
    tokens from `first` to before `end`; (0, 0), no answer, if that is likelier."""
    begin, last = logits_2T[0, first:end], logits_2T[1, first:end]
    sums = np.triu(begin[:, None] + last[None]) + np.tril(np.full((len(begin),) * 2, -np.inf), -1)
    sums += np.triu(np.full(sums.shape, -np.inf), LONGEST_ANSWER)
    place = np.unravel_index(np.argmax(sums), sums.shape) if sums.size else (0, 0)
    if not sums.size or logits_2T[0, 0] + logits_2T[1, 0] >= sums[place]:
        return 0, 0
    return first + int(place[0]), first + int(place[1])


def pair_figures(rows: Rows, config: RunConfig) -> dict[str, float]:
    """`spearman`, the rank correlation of cosines and scores; or `recall_at_1`, the share of first
    texts that are nearest to their own second text among all that are held out."""
    there = rows["targets"] >= 0
    a, b = rows["a"][there], rows["b"][there]
    if len(a) < 2:
        return {}
    if not np.isnan(rows["scores"][there]).any():
        from scipy.stats import rankdata

        ranks = [rankdata(np.sum(a * b, axis=1)), rankdata(rows["scores"][there])]
        if min(map(np.std, ranks)) == 0:
            return {}
        return {"spearman": float(np.corrcoef(*ranks)[0, 1])}
    right = 0
    for first in range(0, len(a), BLOCK):
        near = a[first : first + BLOCK] @ b.T
        right += int(np.sum(np.argmax(near, axis=1) == np.arange(first, first + len(near))))
    return {"recall_at_1": right / len(a)}
