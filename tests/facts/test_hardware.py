"""The hardware table: every figure has a source, every slice is one that exists."""

import dataclasses

import pytest

from llm_jax.config import UserError
from llm_jax.facts.hardware import CHIPS, chip


@pytest.mark.parametrize("name", CHIPS)
def test_every_figure_has_a_source(name):
    entry = chip(name)
    for item in dataclasses.fields(entry):
        value = getattr(entry, item.name)
        if isinstance(value, int | float):
            assert entry.sources[item.name], f"{name}.{item.name}"


def test_v5p_slices_are_those_of_the_documentation():
    """cloud.google.com/tpu/docs/v5p: shapes, names in cores, hosts, the 6,144-chip limit."""
    slices = {s.topology: s for s in chip("v5p").slices}
    documented = {
        "2x2x1": (8, 1), "2x2x2": (16, 2), "2x4x4": (64, 8), "4x4x4": (128, 16),
        "4x4x8": (256, 32), "4x8x8": (512, 64), "8x8x8": (1024, 128), "8x8x16": (2048, 256),
        "8x16x16": (4096, 512), "16x16x16": (8192, 1024), "16x16x24": (12288, 1536),
    }  # fmt: skip
    for topology, (cores, hosts) in documented.items():
        assert slices[topology].name == f"v5p-{cores}"
        assert slices[topology].hosts == hosts
    assert max(s.chips for s in slices.values()) == 6144
    assert not any(slices["2x4x4"].wraps)
    assert all(slices["4x4x8"].wraps)


def test_v5e_and_v6e_slices_count_chips():
    shapes = ["1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16"]
    assert [s.topology for s in chip("v6e").slices] == shapes
    assert [s.name for s in chip("v5e").slices][:3] == [
        "v5litepod-1", "v5litepod-4", "v5litepod-8",
    ]  # fmt: skip
    assert chip("v6e").slices[-1].wraps == (True, True)
    assert chip("v6e").slices[-2].wraps == (False, True)


def test_tpu7x_counts_cores_and_gpus_fill_a_node():
    assert next(s for s in chip("tpu7x").slices if s.topology == "4x4x4").name == "tpu7x-128"
    assert [s.chips for s in chip("h100").slices] == [1, 2, 4, 8]


def test_unknown_chip_names_the_nearest():
    with pytest.raises(UserError, match="did you mean 'v5p'"):
        chip("v5pp")
