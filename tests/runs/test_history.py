"""What has been read follows from the history's lines, whatever was changed on the way."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from tiny import compute_config, run_config

from llm_jax.config import RunConfig, UserError, to_dict
from llm_jax.runs.history import FILE, Entry, Text, append, beginning, read_history

TEXT = Text("f" * 64, 10_000)


def changed(config: RunConfig, **data: int | None) -> RunConfig:
    return dataclasses.replace(config, data=dataclasses.replace(config.data, **data))


def line(step: int, config: RunConfig) -> Entry:
    return Entry(step, to_dict(config), TEXT, changed={"run.data.batch_size": [8, 4]})


def test_tokens_add_up_over_batches_and_lengths(tmp_path: Path) -> None:
    first = run_config(steps=30)  # 8 sequences of 16
    history = beginning(first, TEXT)
    history = history.followed_by(line(10, changed(first, batch_size=4)))
    history = history.followed_by(line(20, changed(first, batch_size=4, seq_len=32)))
    assert [history.sequences(n) for n in (0, 10, 11, 20, 30)] == [0, 80, 84, 120, 160]
    assert [history.tokens(n) for n in (0, 10, 11, 20, 30)] == [0, 1280, 1344, 1920, 3200]
    assert [history.step_tokens(n) for n in (10, 11, 20, 21)] == [128, 64, 64, 128]
    assert history.standing(11) == {"sequences": 84, "tokens": 1344, "fingerprint": "f" * 64}
    for entry in history.entries:
        append(tmp_path, entry)
    stored = read_history(tmp_path, first)
    assert [stored.standing(n) for n in range(31)] == [history.standing(n) for n in range(31)]
    held = [json.loads(one) for one in (tmp_path / FILE).read_text().splitlines()]
    assert [one["step"] for one in held] == [0, 10, 20]
    assert held[0]["changed"] is None


def test_a_ramp_that_is_changed_counts_from_its_own_steps() -> None:
    """4 sequences in steps 0 to 3, then 8; from step 6 on a batch of 2 without a ramp."""
    first = run_config(steps=10, compute=compute_config(accumulate=2))
    first = changed(first, ramp="4:4")
    plain = changed(first, batch_size=2, ramp=None)
    history = beginning(first, TEXT).followed_by(line(6, plain))
    assert [history.sequences(n) for n in (4, 6, 10)] == [16, 32, 40]


def test_a_run_that_went_back_takes_back_what_came_after(tmp_path: Path) -> None:
    first = run_config()
    for entry in (
        *beginning(first, TEXT).entries,
        line(10, changed(first, batch_size=4)),
        line(5, changed(first, batch_size=2)),
    ):
        append(tmp_path, entry)
    history = read_history(tmp_path, first)
    assert [entry.step for entry in history.entries] == [0, 5]
    assert history.sequences(10) == 5 * 8 + 5 * 2
    assert len((tmp_path / FILE).read_text().splitlines()) == 3


def test_a_run_without_a_history_was_never_changed(tmp_path: Path) -> None:
    assert read_history(tmp_path, run_config()).tokens(7) == 7 * 8 * 16


@pytest.mark.parametrize(
    "damage",
    [
        "{",
        "[]",
        '{"step": 3}',
        '{"step": 3, "config": {}}',
        '{"step": 3, "config": {"data": {"x": 1}}}',
        '{"step": 3, "config": {}, "text": 1}',
    ],
)
def test_a_damaged_history_is_one_sentence(tmp_path: Path, damage: str) -> None:
    append(tmp_path, beginning(run_config(), TEXT).entries[0])
    with (tmp_path / FILE).open("a") as file:
        file.write(damage + "\n")
    with pytest.raises(UserError, match=r"history\.jsonl, line 2 is not "):
        read_history(tmp_path, run_config())
