"""Slices by name: what clouds call them, and what to say of those that do not exist."""

from __future__ import annotations

import importlib.util

import pytest

from llm_jax.config import UserError
from llm_jax.preflight import topology
from llm_jax.preflight.topology import find


@pytest.mark.parametrize(
    ("name", "slices", "torus", "devices", "full_name"),
    [
        ("v5p-128", 1, "4x4x4", 64, "v5p-128"),
        ("v5p:4x4x4", 1, "4x4x4", 64, "v5p-128"),
        ("v5e-256", 1, "16x16", 256, "v5litepod-256"),
        ("v5litepod-16", 1, "4x4", 16, "v5litepod-16"),
        ("v6e-256", 1, "16x16", 256, "v6e-256"),
        ("v4-16", 1, "2x2x2", 8, "v4-16"),
        ("tpu7x-16", 1, "2x2x2", 16, "tpu7x-16"),
        ("v5p-4096", 1, "8x16x16", 2048, "v5p-4096"),
        ("v5p-512", 2, "4x8x8", 512, "2x v5p-512"),
        ("2x v5p-512", 1, "4x8x8", 512, "2x v5p-512"),
    ],
)
def test_names(name: str, slices: int, torus: str, devices: int, full_name: str) -> None:
    machine = find(name, slices)
    assert (machine.piece.topology, machine.devices, machine.name) == (torus, devices, full_name)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("v5p-130", "the nearest are v5p-64 (2x4x4), v5p-128 (4x4x4), v5p-256 (4x4x8), v5p-512"),
        ("v5e:3x5", "the nearest are v5e-4 (2x2), v5e-8 (2x4), v5e-16 (4x4), v5e-32 (4x8)"),
        ("v9-3", "or its torus such as v5p:4x4x4"),
        ("h100-8", "There is no TPU topology 'h100-8'"),
        ("v5p", "There is no TPU topology 'v5p'"),
        ("v5p-0", "the nearest are v5p-8 (2x2x1)"),
    ],
)
def test_unknown_names_are_answered_with_near_ones(name: str, words: str) -> None:
    with pytest.raises(UserError) as error:
        find(name)
    assert words in str(error.value)


def test_slices_below_one() -> None:
    with pytest.raises(UserError, match="--slices is 0"):
        find("v5p-8", 0)


def test_a_missing_compiler_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs libtpu, .* pip install 'llm-jax\[tpu\]'"):
        topology.devices(find("v5p-8"))


@pytest.mark.parametrize(
    ("name", "slices"),
    [
        ("v5p-128", 10**8),
        ("v5p-" + "9" * 5000, 1),
        ("9" * 5000 + "x v5p-8", 1),
        ("v5p:" + "4x" * 99, 1),
    ],
)
def test_sizes_without_sense_are_refused_at_once(name, slices):
    with pytest.raises(UserError):
        find(name, slices)
