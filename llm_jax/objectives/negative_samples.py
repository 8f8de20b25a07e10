"""Negative sampling (Mikolov et al. 2013b, §2.2 and §2.3): word2vec's skip-gram and CBOW.

A pair of tokens from the text is told from pairs with random tokens: the loss is
-log σ(u·v) - Σ log σ(-n·v) over the negatives n. Skip-gram has such a pair for each token and each
one around it, in which the first one's vector v meets the second one's u. CBOW has one for each
token: v is the mean vector of those around it. A negative that is the token itself does not count,
as in the authors' program.

Special tokens are left out. So are frequent ones by `model.subsample`, before windows are cut, so
that these reach further. No window leaves its document. All draws follow from `data.seed` and the
row's number in the order of the run.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from llm_jax.config import RunConfig, Word2VecConfig, require
from llm_jax.data.batch import IGNORED, Array, Rows
from llm_jax.data.dataset import TokenDataset
from llm_jax.data.tokenizers import Tokenizer
from llm_jax.models.protocol import Batch, model_of
from llm_jax.objectives.objective import Loss, Objective

COUNTED = 20_000_000
"""Most tokens of the training split whose frequencies are counted, in records at equal distances.
"""


def negative_samples(config: RunConfig) -> Objective:
    """The objective of a run.

    Its batches have, for T tokens and windows of W on each side, of skip-gram (B, T) `inputs` and
    (B, T·2W) `targets`, of CBOW (B, T·2W) `inputs` and (B, T) `targets`; and for each target
    `model.negatives` of `negatives`. -1 is no token.
    """
    model = config.model
    assert isinstance(model, Word2VecConfig)
    require(
        config.data.mixture is None,
        "objective is 'negative_samples', whose samples follow the frequencies of one dataset, but "
        "data.mixture is set: give data.path, or build one dataset of all sources.",
    )
    single, around = config.data.seq_len, config.data.seq_len * 2 * model.window
    inputs, targets = (single, around) if model.method == "skip_gram" else (around, single)
    sizes = {"inputs": inputs, "targets": targets, "negatives": targets * model.negatives}
    return Objective(
        loss,
        {name: Array("int32", ("batch", None), size) for name, size in sizes.items()},
        with_tokenizer=lambda tokenizer: _Sampling(config, model, tokenizer),
        notice=lambda tokenizer: _sentence(config, model, tokenizer),
        of_text=False,
    )


@functools.lru_cache(maxsize=4)
def token_counts(path: str, most: int = COUNTED) -> np.ndarray:
    """How often each token occurs in the training split of a dataset, (V,) int64.

    Args:
      most: of a longer split, records at equal distances with about so many tokens are counted.
    """
    dataset = TokenDataset.open(path)
    records = -(-dataset.num_tokens("train") // dataset.info["record_tokens"])
    counted = min(records, max(most // dataset.info["record_tokens"], 1))
    total = np.zeros(dataset.tokenizer.vocab_size, np.int64)
    for i in range(counted):
        (tokens,) = dataset.records("train", [i * records // counted])
        total += np.bincount(tokens, minlength=len(total))
    return total


def stay_probability(counts_V: np.ndarray, threshold: float) -> np.ndarray:
    """The probability that a token stays, (V,) float64: sqrt(t/f) + t/f, at most 1, as the authors'
    program has it (the paper's equation 5 has sqrt(t/f))."""
    if threshold == 0:
        return np.ones(len(counts_V))
    share_V = threshold * counts_V.sum() / np.maximum(counts_V, 1)
    return np.minimum(np.sqrt(share_V) + share_V, 1.0)


def noise(counts_V: np.ndarray, power: float) -> np.ndarray:
    """Cumulative probability of each token as a negative, (V,) float64; the last is 1."""
    weights_V = np.where(counts_V > 0, counts_V.astype(np.float64) ** power, 0.0)
    sums_V = np.cumsum(weights_V)
    return sums_V / sums_V[-1]  # and not by the sum, which may be rounded to another number


class _Sampling:
    """The `prepare` of a run."""

    def __init__(self, config: RunConfig, model: Word2VecConfig, tokenizer: Tokenizer) -> None:
        self._model, self._seed, self._text = model, config.data.seed, tokenizer.token_bytes > 0
        counts_V = np.where(self._text, token_counts(config.data.path), 0)
        require(
            int(np.count_nonzero(counts_V)) > 1,
            f"data.path is {config.data.path}, whose training split has fewer than two different "
            "tokens of text: give more text.",
        )
        self._stay = stay_probability(counts_V, model.subsample)
        self._noise = noise(counts_V, model.power)

    def __call__(self, rows: Rows, numbers: np.ndarray) -> Rows:
        """(b, T) packed text → the arrays of a batch."""
        there = (rows["targets"] != IGNORED).any(axis=1)
        made = [
            self._row(tokens, segments, present, int(number))
            for tokens, segments, present, number in zip(
                rows["inputs"], rows["segments"], there, numbers, strict=True
            )
        ]
        singles, arounds, negatives = (np.stack(part) for part in zip(*made, strict=True))
        flat = arounds.reshape(len(made), -1)
        inputs, targets = (singles, flat) if self._skips else (flat, singles)
        return {"inputs": inputs, "targets": targets, "negatives": negatives}

    @property
    def _skips(self) -> bool:
        return self._model.method == "skip_gram"

    def _row(
        self, tokens: np.ndarray, segments: np.ndarray, there: bool, number: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The tokens that stay (T,), those around each (T, 2W), and the negatives of all targets.

        A row that is only there to fill a batch has no targets.
        """
        T, W = len(tokens), self._model.window
        draw = np.random.Generator(np.random.Philox(key=[self._seed, number]))
        stays = self._text[tokens] & (draw.random(T) < self._stay[tokens]) & there
        reach = draw.integers(1, W + 1, T)
        kept, document = tokens[stays], segments[stays]
        n = len(kept)
        offsets = np.concatenate([np.arange(-W, 0), np.arange(1, W + 1)])
        place = np.arange(n)[:, None] + offsets
        inside = np.clip(place, 0, max(n - 1, 0))
        near = (place == inside) & (np.abs(offsets) <= reach[:n, None])
        near &= document[inside] == document[:, None]
        single, around = np.full(T, IGNORED, np.int32), np.full((T, 2 * W), IGNORED, np.int32)
        around[:n] = np.where(near, kept[inside], IGNORED)
        single[:n] = np.where(near.any(axis=1), kept, IGNORED)
        count = (around if self._skips else single).size * self._model.negatives
        negatives = np.searchsorted(self._noise, draw.random(count), side="right")
        return single, around, negatives.astype(np.int32)


def loss(params: Any, batch: Batch, weight: jax.Array, config: RunConfig) -> Loss:
    """The loss of each target, times `weight` (`Objective.loss`). Its nats are those of all the
    choices between the text and the samples: (negatives + 1)·log 2 where nothing is known."""
    model, compute, family = config.model, config.compute, model_of(config.model)
    assert isinstance(model, Word2VecConfig)
    inputs_BN, targets_BM = batch["inputs"], batch["targets"]
    negatives_BMK = batch["negatives"].reshape(*targets_BM.shape, model.negatives)
    x_BND = family.embedded(params, jnp.maximum(inputs_BN, 0), compute)
    if model.method == "cbow":
        given_BN = inputs_BN >= 0
        x_BTWD = jnp.where(given_BN[..., None], x_BND, 0).reshape(
            *targets_BM.shape, -1, model.d_model
        )
        counts_BT = jnp.sum(given_BN.reshape(x_BTWD.shape[:-1]), axis=2)
        x_BTD = jnp.sum(x_BTWD, axis=2) / jnp.maximum(counts_BT, 1)[..., None].astype(x_BND.dtype)
    else:
        x_BTD = x_BND
    B, T, D = x_BTD.shape
    known_BM1 = jnp.maximum(targets_BM, 0)[..., None]
    asked_BMk = jnp.concatenate([known_BM1, negatives_BMK], axis=-1)
    u_BND = family.predicted(params, asked_BMk.reshape(B, -1), compute)
    products = jnp.einsum(
        "BTD,BTnD->BTn", x_BTD, u_BND.reshape(B, T, -1, D), preferred_element_type=jnp.float32
    )
    products_BMk = products.reshape(asked_BMk.shape)
    wrong_BMK = jax.nn.softplus(products_BMk[..., 1:])
    wrong_BMK = jnp.where(negatives_BMK == known_BM1, 0.0, wrong_BMK)
    loss_BM = jax.nn.softplus(-products_BMk[..., 0]) + jnp.sum(wrong_BMK, axis=-1)
    nats = jnp.sum(jnp.where(targets_BM >= 0, weight, 0.0) * loss_BM)
    return Loss(nats, jax.lax.stop_gradient(nats))


def _sentence(config: RunConfig, model: Word2VecConfig, tokenizer: Tokenizer) -> str:
    """What is sampled, for the output of a run."""
    text = tokenizer.token_bytes > 0
    counts_V = np.where(text, token_counts(config.data.path), 0)
    stays = float(counts_V @ stay_probability(counts_V, model.subsample) / counts_V.sum())
    return (
        f"samples follow {counts_V.sum():,} counted pieces of text, of which {stays:.0%} stay; the "
        "loss is of choices between text and samples, so there are no bits per byte"
    )
