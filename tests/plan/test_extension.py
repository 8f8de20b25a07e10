"""A second stage with longer sequences."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from asking import Capture, ask, refusal, told

from llm_jax.config import (
    Llama3Rope,
    LongRope,
    ModelConfig,
    RunConfig,
    UserError,
    from_json,
    load,
)
from llm_jax.facts.counts import token_flops
from llm_jax.plan.extension import longer


def test_the_rotary_base_keeps_the_slowest_turn() -> None:
    """θ^((d−2)/d) is the period of the slowest pair: it grows by as much as the sequences."""
    model = load("llama3_8b").model
    long = longer(model, 8192, 131_072)
    assert long.max_seq_len == 131_072
    assert long.rope_theta == pytest.approx(500_000 * 16 ** (128 / 126), rel=1e-3)
    slowest = (long.rope_theta / model.rope_theta) ** (126 / 128)
    assert slowest == pytest.approx(16, rel=1e-3)


def test_a_frequency_scaling_grows_by_its_factor() -> None:
    model = ModelConfig(**{**vars(load("llama3_8b").model), "rope_scaling": Llama3Rope(factor=8.0)})
    long = longer(model, 8192, 32_768)
    assert long.rope_theta == model.rope_theta
    assert long.rope_scaling == Llama3Rope(factor=32.0)


def test_positions_without_a_base() -> None:
    """ALiBi needs no change, and LongRoPE's factors cannot be computed."""
    plain = ModelConfig(**{**vars(load("tiny").model), "attention_init": "normal"})
    alibi = dataclasses.replace(plain, positions="alibi")
    assert longer(alibi, 512, 1024) == dataclasses.replace(alibi, max_seq_len=1024)
    searched = dataclasses.replace(plain, rope_scaling=LongRope())
    with pytest.raises(UserError, match=r"--extend is 1,024, but the model has LongRoPE"):
        longer(searched, 512, 1024)


def test_both_stages_and_both_runs(capsys: Capture, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    words = ("--params", "8B", "--tokens", "1T", "--chip", "v5p", "--chips", "128")
    long = ("--extend", "32768", "--extend-tokens", "20B")
    alone = ask(capsys, *words)
    made = ask(capsys, *words, *long, "--write", str(path), "--name", "long")
    stage = made["extend"]
    assert made["hours"] == alone["hours"]  # the budget pays for the first stage alone
    assert stage["tokens"] == pytest.approx(20e9, rel=1e-3)
    assert stage["batch_tokens"] == made["batch_tokens"]
    assert stage["together"]["hours"] == pytest.approx(made["hours"] + stage["hours"])
    assert stage["together"]["usd"] == pytest.approx(made["usd"] + stage["usd"])
    assert stage["usd"] == pytest.approx(4.2 * stage["chip_hours"])
    assert stage["memory_bytes"]["total"] <= 0.9 * made["memory_bytes"]["capacity"]
    first = from_json(path.read_text(), RunConfig)
    second = from_json((tmp_path / "run-extend.json").read_text(), RunConfig)
    assert stage["written"] == str(tmp_path / "run-extend.json")
    assert (tmp_path / "run-extend.plan.json").is_file()
    assert (second.name, second.out) == ("long-extend", "runs/long-extend")
    assert second.data.seq_len == second.model.max_seq_len == 32_768
    assert second.model.rope_theta == stage["rope_theta"] > first.model.rope_theta
    assert second.optim.learning_rate == pytest.approx(0.1 * first.optim.learning_rate, rel=0.01)
    assert second.steps == stage["steps"]
    # A token costs more: attention sees longer sequences.
    per_token = token_flops(second.model, 32_768).train / token_flops(first.model, 4096).train
    assert stage["flops"] / stage["tokens"] == pytest.approx(
        per_token * made["flops"] / made["tokens"], rel=1e-6
    )
    said = told(capsys, *words, *long, "--write", str(path))
    assert f"llm-jax train {tmp_path / 'run-extend.json'} --init runs/planned" in said


def test_a_stage_that_cannot_be(capsys: Capture) -> None:
    words = ("--params", "1B", "--tokens", "100B", "--chip", "v5p", "--chips", "16")
    both = ("--extend-tokens", "1B")
    assert "give both or neither" in refusal(capsys, *words, "--extend", "8192")
    assert "2,048 tokens: give more" in refusal(capsys, *words, "--extend", "1024", *both)
    few = ("--extend", "8192", "--extend-tokens", "1")
    assert "--extend-tokens is 1," in refusal(capsys, *words, *few)
    table = (*words, "--family", "gpt2", "--extend", "8192", *both)
    assert "learned table" in refusal(capsys, *table)
