"""Batches are a function of (seed, step), cover an epoch once, never cross documents."""

from __future__ import annotations

import os
import shutil
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from data_samples import stream

from llm_jax.config import UserError
from llm_jax.data.batch import IGNORED, Rows
from llm_jax.data.batches import Batches, split_documents
from llm_jax.data.dataset import TokenDataset
from llm_jax.data.tokenizers import Marks

T, B = 64, 6
NAMES = ["inputs", "positions", "segments", "targets"]


def batches_of(dataset: TokenDataset, **changes: object) -> Batches:
    settings = {"split": "train", "seq_len": T, "batch_size": B, "seed": 0, **changes}
    return Batches(dataset, **settings)  # type: ignore[arg-type]


def equal(a: Rows, b: Rows) -> bool:
    return all(np.array_equal(a[name], b[name]) for name in NAMES)


def test_shapes_and_types(dataset: TokenDataset) -> None:
    batch = batches_of(dataset).at(3)
    assert sorted(batch) == NAMES
    assert {(array.shape, array.dtype.name) for array in batch.values()} == {((B, T), "int32")}


def test_documents_inside_a_window() -> None:
    """Worked by hand: the window begins inside a document and holds two more; <s> is 1, </s> 2."""
    tokens = np.array([[7, 8, 2, 1, 9, 2, 1, 5]], np.int32)
    batch = split_documents(tokens, marks=Marks(1, 2))
    assert batch["inputs"].tolist() == [[7, 8, 2, 1, 9, 2, 1]]
    assert batch["targets"].tolist() == [[8, 2, -1, 9, 2, -1, 5]]
    assert batch["segments"].tolist() == [[1, 1, 1, 2, 2, 2, 3]]
    assert batch["positions"].tolist() == [[0, 1, 2, 0, 1, 2, 0]]


def test_a_window_that_begins_with_a_document_starts_at_segment_one() -> None:
    batch = split_documents(np.array([[1, 7, 2, 1]], np.int32), marks=Marks(1, 2))
    assert batch["segments"].tolist() == [[1, 1, 1]]
    assert batch["positions"].tolist() == [[0, 1, 2]]
    assert batch["targets"].tolist() == [[7, 2, -1]]


@pytest.mark.slow
@pytest.mark.parametrize("seq_len", [1, 64, 500, 2048, 3000])
def test_one_epoch_reads_every_window_once(dataset: TokenDataset, seq_len: int) -> None:
    tokens = stream(dataset, "train").astype(np.int32)
    windows = (len(tokens) - 1) // seq_len
    batches = batches_of(dataset, seq_len=seq_len, batch_size=1)
    assert batches.steps_per_epoch == windows
    rows = [batch["inputs"][0] for batch in batches.run(0, windows)]
    expected = tokens[: windows * seq_len].reshape(windows, seq_len)
    assert Counter(row.tobytes() for row in rows) == Counter(row.tobytes() for row in expected)
    assert not np.array_equal(np.stack(rows), expected)  # shuffled


def test_targets_are_the_next_tokens_of_the_stream(dataset: TokenDataset) -> None:
    tokens = stream(dataset, "validation").astype(np.int32)
    batches = batches_of(dataset, split="validation", seed=None, batch_size=1)
    row = np.concatenate([b["targets"][0] for b in batches.run(0, batches.steps_per_epoch)])
    following = tokens[1 : len(row) + 1]
    assert np.array_equal(row == IGNORED, following == dataset.tokenizer.bos_id)
    assert np.array_equal(row[row != IGNORED], following[row != IGNORED])
    assert np.count_nonzero(row == IGNORED) > 0


def test_epochs_and_seeds_differ(dataset: TokenDataset) -> None:
    batches = batches_of(dataset, batch_size=1)
    epoch = batches.steps_per_epoch
    orders = [
        [b["inputs"].tobytes() for b in source.run(first, epoch)]
        for source, first in (
            (batches, 0),
            (batches, epoch),
            (batches_of(dataset, batch_size=1, seed=1), 0),
        )
    ]
    assert Counter(orders[0]) == Counter(orders[1]) == Counter(orders[2])
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert sum(x == y for x, y in zip(orders[a], orders[b], strict=True)) < epoch / 10


def test_a_batch_may_span_two_epochs(dataset: TokenDataset) -> None:
    one = batches_of(dataset, batch_size=1)
    size = next(size for size in (5, 6, 7) if one.windows % size)
    step = one.windows // size  # its first rows end epoch 0, the others begin epoch 1
    batch = batches_of(dataset, batch_size=size).at(step)
    rows = [one.at(step * size + row)["inputs"][0] for row in range(size)]
    assert np.array_equal(batch["inputs"], np.stack(rows))


@pytest.mark.parametrize("hosts", [2, 3, 6])
def test_the_global_batch_does_not_depend_on_the_hosts(dataset: TokenDataset, hosts: int) -> None:
    for step in (0, 7, 10**7):
        whole = batches_of(dataset).at(step)
        parts = [batches_of(dataset, host=h, hosts=hosts).at(step) for h in range(hosts)]
        joined = {name: np.concatenate([part[name] for part in parts]) for name in NAMES}
        assert equal(joined, whole)


def test_a_step_is_the_same_however_it_is_reached(dataset: TokenDataset) -> None:
    batches = batches_of(dataset)
    expected = [batches.at(step) for step in range(40, 80)]
    assert all(map(equal, batches.run(40, 40), expected))
    with batches.iterate(40) as iterator:
        for step in range(40, 80):
            got, batch = next(iterator)
            assert got == step
            assert equal(batch, expected[step - 40])
    reopened = TokenDataset.open(dataset.path)
    assert equal(batches_of(reopened).at(41), expected[1])


def test_a_late_step_reads_no_more_than_an_early_one(
    dataset: TokenDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    original = TokenDataset.records

    def counting(self: TokenDataset, split: str, numbers: list[int]) -> list[np.ndarray]:
        read.append(len(numbers))
        return original(self, split, numbers)

    monkeypatch.setattr(TokenDataset, "records", counting)
    for step in (10, 10_000_000):
        batches_of(dataset).at(step)
    assert len(read) == 2
    assert max(read) <= 2 * B  # a window of 65 tokens lies in at most two records


def test_in_order_pass_ends_and_counts_each_token_once(dataset: TokenDataset) -> None:
    whole = batches_of(dataset, split="validation", seed=None)
    size = next(size for size in (5, 6, 7) if whole.windows % size)  # the last is not full
    batches = batches_of(dataset, split="validation", seed=None, batch_size=size)
    with batches.iterate() as iterator:
        seen = [batch for _, batch in iterator]
    assert len(seen) == batches.steps_per_epoch
    counted = sum(np.count_nonzero(batch["targets"] != IGNORED) for batch in seen)
    tokens = stream(dataset, "validation")[1 : batches.windows * T + 1]
    assert counted == np.count_nonzero(tokens != dataset.tokenizer.bos_id)


def test_an_error_in_a_thread_reaches_the_consumer(
    dataset: TokenDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = batches_of(dataset)

    def broken(step: int, count: int) -> list[Rows]:
        raise OSError("the disk is gone")

    with batches.iterate() as iterator:
        next(iterator)
    monkeypatch.setattr(batches, "run", broken)
    with batches.iterate() as iterator:
        for _ in range(2):  # the second try does not skip what the first could not read
            with pytest.raises(OSError, match="the disk is gone"):
                next(iterator)


def test_closing_ends_the_iterator_and_its_threads(dataset: TokenDataset) -> None:
    iterator = batches_of(dataset).iterate()
    next(iterator)
    iterator.close()
    assert list(iterator) == []
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("batches")]


def test_refusals(dataset: TokenDataset) -> None:
    with pytest.raises(UserError, match="has no split 'test': it has train, validation"):
        batches_of(dataset, split="test")
    with pytest.raises(UserError, match=r"data\.seq_len is 10000000, but split 'train'"):
        batches_of(dataset, seq_len=10_000_000)
    with pytest.raises(UserError, match=r"data\.batch_size is 6, which 4 hosts do not divide"):
        batches_of(dataset, hosts=4)


def test_bytes_per_token(dataset: TokenDataset) -> None:
    sizes = dataset.tokenizer.token_bytes
    total = sum(int(sizes[stream(dataset, split)].sum()) for split in ("train", "validation"))
    assert dataset.info["bytes"] == total
    assert dataset.bytes_per_token == pytest.approx(total / dataset.info["tokens"])


@pytest.mark.parametrize("file", ["features.json", "another"])
def test_records_that_are_not_regular_files_are_named(
    file: str, dataset: TokenDataset, tmp_path: Path
) -> None:
    copy = tmp_path / "dataset"
    shutil.copytree(dataset.path, copy)
    (copy / "tokens/1.0.0" / file).unlink(missing_ok=True)
    os.mkfifo(copy / "tokens/1.0.0" / file)
    with pytest.raises(UserError, match=file):
        TokenDataset.open(copy)
