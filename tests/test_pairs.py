"""The benchmark of pairs: what it asks for is right, and a short run of it learns."""

from __future__ import annotations

import datetime
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from llm_jax.config import RecurrentEncoderDecoderConfig
from llm_jax.data.dataset import TokenDataset
from llm_jax.train.loop import train
from llm_jax.train.metrics import read_metrics


@pytest.fixture(scope="module")
def pairs() -> ModuleType:
    path = Path(__file__).parent.parent / "benchmarks/pairs.py"
    spec = importlib.util.spec_from_file_location("pairs_benchmark", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_what_is_asked_for_is_right(pairs: ModuleType) -> None:
    assert pairs.words(40213) == "forty thousand two hundred thirteen"
    for day, english, japanese in (
        ((2024, 3, 5), "March 5, 2024", "令和六年三月五日"),
        ((2019, 5, 1), "May 1, 2019", "令和元年五月一日"),
        ((2019, 4, 30), "April 30, 2019", "平成三十一年四月三十日"),
        ((1989, 1, 7), "January 7, 1989", "昭和六十四年一月七日"),
        ((1926, 12, 25), "December 25, 1926", "昭和元年十二月二十五日"),
        ((1912, 7, 29), "July 29, 1912", "明治四十五年七月二十九日"),
        ((1921, 10, 20), "October 20, 1921", "大正十年十月二十日"),
    ):
        date = datetime.date(*day)
        assert (pairs.english(date), pairs.japanese(date)) == (english, japanese)
    draw, task = np.random.default_rng(0), pairs.TASKS["dates"]
    seen, held = (
        {task.drawn(draw, None, kind)[0].split(" ")[1] for _ in range(300)}
        for kind in (False, True)
    )
    assert not seen & held
    assert min(len(seen), len(held)) > 250


@pytest.mark.slow
def test_a_short_run_learns(pairs: ModuleType, tiny_dataset: Path, tmp_path: Path) -> None:
    size = TokenDataset.open(tiny_dataset).tokenizer.vocab_size + 128
    model = RecurrentEncoderDecoderConfig(
        vocab_size=size, num_layers=1, num_decoder_layers=1, d_model=32, max_seq_len=64
    )
    out = str(tmp_path / "run")
    train(pairs.config_of(str(tiny_dataset), out, "dates", model, 60))
    (held_out,) = (
        record["loss"]
        for record in read_metrics(Path(out) / "metrics.jsonl")
        if record["split"] == "validation"
    )
    assert held_out < 0.7 * np.log(size)
    shares = pairs.exact(out, pairs.TASKS["dates"], 8)
    assert set(shares) == {"English dates", "Japanese dates"}
    assert all(0 <= share <= 1 for share in shares.values())
