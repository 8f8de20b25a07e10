"""Interpolated modified Kneser-Ney n-gram model over token ids (Chen & Goodman 1999, §3).

The baseline for a neural model: the strongest count-based model, on the same tokens.

    p(w|h) = (a(hw) - D(a(hw))) / a(h·) + γ(h) p(w|h'),   γ(h) = Σ_w D(a(hw)) / a(h·)

h' is h without its first token. a(g) is the count of g at the highest order, and for grams that
begin with <s>; otherwise it is the number of different tokens seen before g. D has three values per
order, computed from counts of counts. The unigram distribution is interpolated with the uniform
one. Documents are independent: no gram spans <s>, and <s> is never predicted.

Grams of order n are numbered in the sorted order of (number of their first n-1 tokens, last token).
So all counting is sorting of integers, and a context is the number of a gram of order n-1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from llm_jax.config import UserError
from llm_jax.data.tokenizers import Tokenizer
from llm_jax.evals.score import Score

UNSEEN = -1


@dataclass(frozen=True)
class Order:
    """The grams of one order n, numbered in the order of `keys`.

    Attributes:
      keys: (m,) int64 sorted, number of the first n-1 tokens · V + last token.
      gain: (m,) float64, (a - D(a)) / a(h·) of each gram.
      backoff: γ of each context, indexed by the number of a gram of order n-1 (by 0 for n = 1).
    """

    keys: np.ndarray
    gain: np.ndarray
    backoff: np.ndarray


class NGram:
    """A trained model; see `train`.

    Attributes:
      order: largest n.
      vocab_size: V; every id but `bos_id` can be predicted.
    """

    def __init__(self, orders: list[Order], vocab_size: int, bos_id: int) -> None:
        self._orders = orders
        self.order = len(orders)
        self.vocab_size = vocab_size
        self.bos_id = bos_id

    def probabilities(self, tokens: np.ndarray) -> np.ndarray:
        """p of each token of a stream given those before it in its document, (n,) float64.

        It is NaN at each <s>.
        """
        place = _place_in_document(tokens, self.bos_id)
        p = np.full(len(tokens), 1 / (self.vocab_size - 1))
        number = np.zeros(len(tokens), np.int64)  # of the empty gram that ends at each token
        for n, order in enumerate(self._orders, 1):
            context = np.concatenate([[UNSEEN], number[:-1]]) if n > 1 else number
            usable = (context != UNSEEN) & (place >= max(n - 1, 1))
            number = _look_up(order.keys, context, tokens, self.vocab_size)
            if n > 1:
                number[place < n - 1] = UNSEEN
            seen = usable & (number != UNSEEN)
            p[usable] *= order.backoff[context[usable]]
            p[seen] += order.gain[number[seen]]
        p[tokens == self.bos_id] = np.nan
        return p

    def score(self, tokens: np.ndarray, tokenizer: Tokenizer) -> Score:
        """The score of every token of a stream except <s>."""
        targets = tokens[tokens != self.bos_id]
        p = self.probabilities(tokens)[tokens != self.bos_id]
        return Score(
            float(-np.log(p).sum()), len(targets), int(tokenizer.token_bytes[targets].sum())
        )


def train(tokens: np.ndarray, *, order: int, vocab_size: int, bos_id: int) -> NGram:
    """Counts the grams of a stream `<s> document </s> …` up to `order`.

    It takes about 60 bytes of memory per token and order, and about a second per million tokens and
    order.

    Raises:
      UserError: there are fewer than two tokens, or the order is not positive.
    """
    if order < 1:
        raise UserError(f"--ngram is {order}: give 1 or more.")
    if len(tokens) < 2:
        raise UserError("There are too few tokens to count: give more text.")
    place = _place_in_document(tokens, bos_id)
    # numbers[n][i]: number of the gram of order n that ends at token i, UNSEEN where none does.
    numbers = [np.zeros(len(tokens), np.int64)]
    tables: list[np.ndarray] = []
    for n in range(1, order + 1):
        number, keys = _number(numbers[-1], tokens, place >= n - 1, n, vocab_size)
        numbers.append(number)
        tables.append(keys)
    orders = []
    for n in range(1, order + 1):
        longer = numbers[n + 1] if n < order else None
        adjusted = _adjusted_counts(numbers[n], len(tables[n - 1]), longer, place == n - 1)
        contexts = len(tables[n - 2]) if n > 1 else 1
        orders.append(_smoothed(tables[n - 1], adjusted, contexts, n, vocab_size, bos_id))
    return NGram(orders, vocab_size, bos_id)


def _place_in_document(tokens: np.ndarray, bos_id: int) -> np.ndarray:
    """Tokens between each token and the <s> of its document: 0 at <s> itself."""
    here = np.arange(len(tokens))
    return here - np.maximum.accumulate(np.where(tokens == bos_id, here, 0))


def _number(
    shorter: np.ndarray, tokens: np.ndarray, whole: np.ndarray, n: int, V: int
) -> tuple[np.ndarray, np.ndarray]:
    """Number of the gram of order n that ends at each token, and the sorted keys of all grams."""
    before = shorter if n == 1 else np.concatenate([[UNSEEN], shorter[:-1]])
    ends = np.flatnonzero(whole & (before != UNSEEN))
    keys, inverse = np.unique(before[ends] * V + tokens[ends], return_inverse=True)
    number = np.full(len(tokens), UNSEEN, np.int64)
    number[ends] = inverse
    return number, keys


def _adjusted_counts(
    number: np.ndarray, grams: int, longer: np.ndarray | None, starts: np.ndarray
) -> np.ndarray:
    """a of each gram: its count at the highest order, otherwise the number of different tokens seen
    before it.

    Args:
      longer: numbers of the grams one token longer, None at the highest order.
      starts: where a gram begins with <s>. Nothing can precede it, so it keeps its count.
    """
    if longer is None:
        return np.bincount(number[number != UNSEEN], minlength=grams)
    _, ends = np.unique(longer[longer != UNSEEN], return_index=True)
    different = number[longer != UNSEEN][ends]
    at_start = number[starts & (number != UNSEEN)]
    return np.bincount(different, minlength=grams) + np.bincount(at_start, minlength=grams)


def _smoothed(
    keys: np.ndarray, adjusted: np.ndarray, contexts: int, n: int, V: int, bos_id: int
) -> Order:
    if n == 1:
        adjusted = np.where(keys == bos_id, 0, adjusted)  # <s> is given, never predicted
    context = keys // V
    discount = _discounts(adjusted)[np.minimum(adjusted, 3)]
    total = np.bincount(context, weights=adjusted, minlength=contexts)
    taken = np.bincount(context, weights=discount, minlength=contexts)
    # A context seen only at the end of documents predicts nothing: the shorter one gets all weight.
    seen = total > 0
    backoff = np.divide(taken, total, out=np.ones(contexts), where=seen)
    gain = (adjusted - discount) / np.where(seen, total, 1)[context]
    return Order(keys, gain, backoff)


def _discounts(adjusted: np.ndarray) -> np.ndarray:
    """D(0) = 0, D(1), D(2), D(3+), equation 26 of Chen & Goodman.

    In a tiny text, the equation can give a D(k) that is not between 0 and k. Then D(k) is k/2.
    """
    n = np.bincount(np.minimum(adjusted, 5), minlength=5)[:5].astype(float)
    discounts = [0.0]
    y = n[1] / (n[1] + 2 * n[2]) if n[1] else 0.5
    for k in (1, 2, 3):
        d = k - (k + 1) * y * n[k + 1] / n[k] if n[k] else k / 2
        discounts.append(d if 0 < d < k else k / 2)
    return np.array(discounts)


def _look_up(keys: np.ndarray, context: np.ndarray, tokens: np.ndarray, V: int) -> np.ndarray:
    if len(keys) == 0:  # no document is as long as this order
        return np.full(len(tokens), UNSEEN)
    wanted = context * V + tokens
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where((context != UNSEEN) & (keys[at] == wanted), at, UNSEEN)
