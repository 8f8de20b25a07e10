"""Numbers and texts without sense, given to the notebook's door: one sentence, at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import llm_jax as lj
from llm_jax.data.dataset import TokenDataset
from llm_jax.infer.generator import generate


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"batch_size": 10**15}, "at most 2,147,483,647 tokens"),
        ({"batch_size": 0}, "data.batch_size is 0"),
        ({"batch_size": -1}, "data.batch_size is -1"),
        ({"seq_len": 0}, "data.seq_len is 0"),
        ({"seq_len": 10**25}, "at most 2,147,483,647 tokens"),
        ({"seed": 2**70}, "data.seed is 1180591620717411303424"),
        ({"seed": -1}, "data.seed is -1"),
    ],
)
def test_batches_without_sense(tiny_dataset: Path, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(lj.UserError, match=sentence):
        TokenDataset.open(tiny_dataset).batches(**{"seq_len": 8, "batch_size": 4} | changes)


@pytest.mark.parametrize("step", [-1, 10**25, 2**62])
def test_steps_without_sense(tiny_dataset: Path, step: int) -> None:
    batches = TokenDataset.open(tiny_dataset).batches(seq_len=8, batch_size=4)
    with pytest.raises(lj.UserError, match=f"The step is {step}"):
        batches.at(step)
    assert batches.at(10**15)["inputs"].shape == (4, 8)


def test_a_prompt_that_is_not_unicode(tiny_dataset: Path) -> None:
    tokenizer = TokenDataset.open(tiny_dataset).tokenizer
    with pytest.raises(lj.UserError, match=r"'\\ud800' at character 2, which is not Unicode"):
        tokenizer.encode("ab\ud800")
    assert tokenizer.decode(tokenizer.encode("a\0b")) is not None


@pytest.mark.parametrize("seed", [-1, 2**32, 2**70])
def test_a_seed_that_no_generator_takes(seed: int) -> None:
    with pytest.raises(lj.UserError, match=f"The seed is {seed}"):
        generate({}, None, [[1]], max_tokens=1, seed=seed)  # type: ignore[arg-type]
