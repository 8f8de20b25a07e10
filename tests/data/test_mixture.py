"""A mixture's batches are its sources' own, interleaved; stages, amounts, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm_jax.config import (
    Amount,
    ConfigError,
    DataConfig,
    MixtureConfig,
    MixtureSource,
    MixtureStage,
    from_dict,
    to_dict,
)
from llm_jax.data.blend import Blend, shares_of
from llm_jax.data.dataset import TokenDataset
from llm_jax.data.mixed_batches import MixedBatches, Reading
from llm_jax.data.mixture import portions, run_shares
from llm_jax.data.order import Order

T, B = 32, 12


def mixture(*stages: tuple[float, dict[str, Any]], **caps: float) -> MixtureConfig:
    """A number is a weight; text is another amount, such as "epochs=2"."""

    def amount(name: str, value: Any) -> Amount:
        if not isinstance(value, str):
            return Amount(source=name, weight=value)
        kind, number = value.split("=")
        made: Any = int(number) if kind == "tokens" else float(number)
        return Amount(source=name, **{kind: made})

    names = list(dict.fromkeys(name for _, read in stages for name in read))
    return MixtureConfig(
        sources=tuple(
            MixtureSource(name=n, path=f"data/{n}", max_epochs=caps.get(n)) for n in names
        ),
        stages=tuple(
            MixtureStage(start=start, read=tuple(amount(*item) for item in read.items()))
            for start, read in stages
        ),
    )


def data(*stages: tuple[float, dict[str, Any]], **fields: Any) -> DataConfig:
    return DataConfig(path="", mixture=mixture(*stages), seq_len=T, batch_size=B, **fields)


def shares(made: DataConfig, steps: int, tokens: list[int]) -> list[tuple[int, int, list[float]]]:
    return [
        (one.first, one.end, [share / 1e6 for share in one.blend.shares])
        for one in portions(made, steps, tokens)
    ]


def test_each_source_is_read_in_its_own_order(three_sources: dict[str, Path]) -> None:
    """The sequences of a source are those that it alone gives, in that order, on any hosts."""
    datasets = [TokenDataset.open(path) for path in three_sources.values()]
    orders = tuple(Order(one.num_tokens("train"), T, 5) for one in datasets)
    reading = Reading(Blend(shares_of([5, 3, 2])), orders, (7, 0, 1000))

    def batches(host: int = 0, hosts: int = 1) -> MixedBatches:
        return MixedBatches(
            datasets, reading, seq_len=T, batch_size=B, seed=5, host=host, hosts=hosts, offset=3
        )

    whole = batches().run(0, 50)
    source, _ = reading.blend.split(np.arange(3, 3 + 50 * B))
    assert np.bincount(source).tolist() == [300, 180, 120]
    for number, dataset in enumerate(datasets):
        alone = dataset.batches(seq_len=T, batch_size=1, seed=5)
        skipped = reading.starts[number] + reading.blend.before(3)[number]
        expected = alone.run(skipped, int((source == number).sum()))
        for name in whole[0]:
            found = np.concatenate([batch[name] for batch in whole])[source == number]
            np.testing.assert_array_equal(found, np.concatenate([one[name] for one in expected]))
    for hosts in (2, 3, 6):
        for step in (0, 17, 49):
            parts = [batches(host, hosts).at(step) for host in range(hosts)]
            for name in whole[0]:
                joined = np.concatenate([part[name] for part in parts])
                np.testing.assert_array_equal(joined, whole[step][name])


def test_stages_by_share_of_the_run() -> None:
    made = data((0, {"web": 3, "books": 1}), (0.9, {"books": 1, "web": 1}))
    assert shares(made, 100, [10**6, 10**5]) == [(0, 90, [0.75, 0.25]), (90, 100, [0.5, 0.5])]
    assert run_shares(made, 100, [10**6, 10**5]) == pytest.approx([0.725, 0.275])


def test_tokens_and_epochs_come_first_and_weights_share_the_rest() -> None:
    """100 steps read 38,400 tokens: two epochs of 4,800, then 9,600, the rest 3 to 1."""
    made = data((0, {"a": "epochs=2", "b": "tokens=9600", "c": 3, "d": 1}))
    assert shares(made, 100, [4800, 1, 1, 1]) == [(0, 100, [0.25, 0.25, 0.375, 0.125])]


def test_a_ramp_counts_in_sequences() -> None:
    """The first half of the steps reads a third of the sequences: 4 per step, then 8."""
    made = data((0, {"a": 1}), (0.5, {"a": 1, "b": 1}))
    ramp = DataConfig(path="", mixture=made.mixture, seq_len=T, batch_size=8, ramp="4:100")
    assert ramp.sequences(100) == 400 and ramp.sequences(200) == 1200
    assert run_shares(ramp, 200, [10**6, 10**6]) == pytest.approx([2 / 3, 1 / 3])


def test_json_and_back() -> None:
    made = data((0, {"a": "epochs=2", "b": 0}), (0.5, {"a": 1, "b": 2.5}))
    assert from_dict(to_dict(made), DataConfig, "data") == made


A = {"a": 1.0}


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: mixture((0, {"a": -1.0})), "'a' of a stage has weight -1: it must be 0 or more"),
        (lambda: mixture((0, {"a": 0.0, "b": 0.0})), "the weights of the stage at 0 are all 0"),
        (lambda: mixture((0, A), (1.2, A)), "starts at 1.2 of the run.*beyond the run"),
        (lambda: mixture((0, A), (0.5, A), (0.4, A)), "start at 0, 0.5, 0.4: the first must"),
        (lambda: mixture((0.1, A)), "start at 0.1: the first must start at 0"),
        (lambda: mixture((0, {"a b": 1.0})), "a source named 'a b': use letters"),
        (lambda: mixture((0, A), a=-1), "'a' has max_epochs -1: it must be above 0"),
        (lambda: Amount(source="a"), "has no amount: give one of weight, tokens, epochs"),
        (lambda: Amount(source="a", weight=1.0, epochs=2.0), "has weight and epochs: give one"),
        (lambda: Amount(source="a", tokens=0), "has tokens 0: it must be above 0"),
        (
            lambda: MixtureConfig(
                sources=(MixtureSource(name="books", path="x"),),
                stages=(MixtureStage(read=(Amount(source="boks", weight=1.0),)),),
            ),
            "reads 'boks', which is not one of the sources: did you mean 'books'",
        ),
        (
            lambda: MixtureConfig(
                sources=(MixtureSource(name="a", path="x"), MixtureSource(name="b", path="x")),
                stages=(MixtureStage(read=(Amount(source="a", weight=1.0),)),),
            ),
            "two sources with the path 'x'",
        ),
        (lambda: DataConfig(path="data/x", mixture=mixture((0, A))), "but data.mixture names what"),
        (lambda: data((0, A), (0.99, A)).mixture.check_stages(20), "no step in a run of 20 steps"),
        (
            lambda: portions(data((0, {"a": "epochs=9", "b": 1})), 10, [1000, 1000]),
            "are 9,000 tokens, but the stage reads 3,840 and others have weights: lower them",
        ),
        (
            lambda: portions(data((0, {"a": "tokens=1000"})), 10, [1000]),
            "only 1,000 of the 3,840 tokens that it reads: give one source a weight",
        ),
        (
            lambda: portions(data((0, {"a": 1, "b": 1e-8})), 10, [1000, 1000]),
            "'b' has only 1e-08 of the stage at 0: give it at least 1e-06, or the weight 0",
        ),
    ],
)  # fmt: skip
def test_what_is_refused(make: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make()
