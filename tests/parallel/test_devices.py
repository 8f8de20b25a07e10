"""Meshes follow the network: slices over the outer axes, torus links along the inner ones."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import pytest

from llm_jax.config import ConfigError
from llm_jax.parallel.devices import arrange
from llm_jax.parallel.mesh import AXES


@dataclass(frozen=True)
class Chip:
    """What `mesh_utils` looks at of a TPU."""

    id: int
    coords: tuple[int, int, int]
    slice_index: int
    platform: str = "tpu"
    device_kind: str = "TPU v4"
    core_on_chip: int = 0
    process_index: int = 0


def slices(count: int, shape: tuple[int, int, int]) -> list[Chip]:
    places = list(product(range(count), *(range(size) for size in shape)))
    return [Chip(i, place[1:], place[0]) for i, place in enumerate(places)]


def arranged(devices: list[Chip], **sizes: int) -> np.ndarray:
    return arrange(dict.fromkeys(AXES, 1) | sizes, devices)


def test_replicas_are_slices() -> None:
    found = arranged(slices(2, (2, 2, 2)), replica=2, fsdp=4, tensor=2)
    assert found.shape == (2, 1, 1, 4, 1, 1, 2)
    for replica in range(2):
        assert {chip.slice_index for chip in found[replica].flat} == {replica}


def test_replicas_in_one_slice_and_stages_over_the_others() -> None:
    found = arranged(slices(4, (2, 2, 1)), replica=2, pipeline=4, fsdp=2)
    for replica, stage in product(range(2), range(4)):
        owners = {chip.slice_index for chip in found[replica, stage].flat}
        assert len(owners) == 1
    by_stage = [{chip.slice_index for chip in found[:, stage].flat} for stage in range(4)]
    assert by_stage[0] == by_stage[1] and by_stage[2] == by_stage[3]
    assert not by_stage[0] & by_stage[2]


def test_an_inner_axis_runs_along_the_links() -> None:
    found = arranged(slices(1, (4, 4, 4)), fsdp=16, tensor=4)[0, 0, 0, :, 0, 0, :]
    for ring in found:
        coords = np.array([chip.coords for chip in ring])
        assert (np.ptp(coords, axis=0) > 0).sum() == 1


def test_slices_that_no_outer_axis_spans_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"in 2 slices, but .* 1 x 1: .* make parallel.replica 2"):
        arranged(slices(2, (2, 2, 2)), fsdp=16)
