"""After a change of the windows' length or of the seed, an epoch still reads each token once."""

from __future__ import annotations

import numpy as np
import pytest
from data_samples import stream

from llm_jax.data.batch import IGNORED
from llm_jax.data.batches import Batches
from llm_jax.data.dataset import TokenDataset
from llm_jax.data.order import Order

TOKENS = 10_007


def inputs_of(order: Order, first: int, last: int) -> np.ndarray:
    """Places in the stream that rows `first` to `last` of `order` read, in any order."""
    found = [np.zeros(0, np.int64)]
    for row in range(first, last):
        one = np.array([row])
        if order.left is not None and row < order.first_rows:
            places, _, filled = order.pieced(one)
            found.append(places[~filled])
        else:
            found.append(order.whole(one)[0] + np.arange(order.seq_len))
    return np.concatenate(found)


CHANGES = {
    "longer": [(64, 0), (128, 0)],
    "shorter": [(64, 0), (16, 0)],
    "neither divides": [(64, 0), (100, 0), (37, 0)],
    "another seed": [(64, 0), (64, 5)],
    "there and back": [(64, 0), (96, 1), (64, 0), (200, 3)],
}


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("share", [0.05, 0.3])
def test_an_epoch_reads_each_token_once(changes: list[tuple[int, int]], share: float) -> None:
    (seq_len, seed), *others = changes
    order = Order(TOKENS, seq_len, seed)
    whole = order.windows * seq_len
    read = []
    for seq_len, seed in others:
        rows = int(order.first_rows * share)
        read.append(inputs_of(order, 0, rows))
        order = order.changed(rows, seq_len, seed)
        assert (order.seq_len, order.seed, order.epoch) == (seq_len, seed, 0)
    read.append(inputs_of(order, 0, order.first_rows))
    np.testing.assert_array_equal(np.sort(np.concatenate(read)), np.arange(whole))
    # The epoch after is whole, and as it would be without what came before.
    following = inputs_of(order, order.first_rows, order.first_rows + order.windows)
    assert sorted(following) == list(range(order.windows * seq_len))
    untouched = Order(TOKENS, seq_len, seed)
    second = inputs_of(untouched, order.windows, 2 * order.windows)
    np.testing.assert_array_equal(following, second)


def test_a_change_in_a_later_epoch_and_one_between_epochs() -> None:
    order = Order(TOKENS, 64, 0)
    later = order.changed(2 * order.windows + 10, 32, 0)
    assert later.epoch == 2 and later.left is not None
    read = [inputs_of(order, 2 * order.windows, 2 * order.windows + 10)]
    read.append(inputs_of(later, 0, later.first_rows))
    np.testing.assert_array_equal(
        np.sort(np.concatenate(read)), np.arange(order.windows * order.seq_len)
    )
    between = order.changed(2 * order.windows, 32, 0)
    assert (between.epoch, between.left) == (2, None)
    again = later.changed(later.first_rows + 2 * later.windows + 3, 64, 0)
    assert again.epoch == 5


def test_neighbours_that_are_unread_become_one_context() -> None:
    """With a twentieth read, most windows of twice the length are whole."""
    order = Order(TOKENS, 64, 0)
    longer = order.changed(order.windows // 20, 128, 0)
    rows = np.arange(longer.first_rows)
    _, starts, _ = longer.pieced(rows)
    assert np.mean(~starts[:, 1:].any(axis=1)) > 0.8


def test_batches_of_pieces_predict_the_next_token_and_see_one_piece(dataset: TokenDataset) -> None:
    tokens = stream(dataset, "train").astype(np.int64)
    order = Order(len(tokens), 32, 0).changed(400, 48, 0)
    B = 5
    batches = Batches(dataset, split="train", seq_len=48, batch_size=B, seed=0, order=order)
    last = order.first_rows // B  # reaches into the epoch after
    for step, batch in enumerate(batches.run(0, last + 1)):
        rows = np.arange(step * B, (step + 1) * B)
        pieced = rows[rows < order.first_rows]
        places, starts, filled = order.pieced(pieced)
        n = len(pieced)
        np.testing.assert_array_equal(batch["inputs"][:n][~filled], tokens[places][~filled])
        following = tokens[places + 1]
        expected = np.where((following == dataset.tokenizer.bos_id) | filled, IGNORED, following)
        np.testing.assert_array_equal(batch["targets"][:n], expected)
        assert (batch["positions"][:n][starts] == 0).all()
        joined = np.diff(batch["segments"][:n], axis=1) == 0
        assert (np.diff(places, axis=1)[joined & ~filled[:, 1:]] == 1).all()
        whole = order.whole(rows[n:])[:, None] + np.arange(48)
        np.testing.assert_array_equal(batch["inputs"][n:], tokens[whole])
    parts = [
        Batches(
            dataset, split="train", seq_len=48, batch_size=6, seed=0, order=order, host=h, hosts=3
        ).at(last // 2)
        for h in range(3)
    ]
    alone = Batches(dataset, split="train", seq_len=48, batch_size=6, seed=0, order=order)
    joined_parts = np.concatenate([part["inputs"] for part in parts])
    np.testing.assert_array_equal(joined_parts, alone.at(last // 2)["inputs"])
