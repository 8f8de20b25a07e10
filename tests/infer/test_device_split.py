"""Verbs over several devices: texts and scores as on one, a part of the weights on each."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from task_run import random_run
from verb_calls import call_json

from llm_jax.infer.device_split import Split
from llm_jax.infer.engine.settings import EngineSettings
from llm_jax.language_model import load_model
from llm_jax.serve.opening import load, places_of


@pytest.fixture(scope="module")
def folder(tiny_dataset, tmp_path_factory):
    return random_run(tmp_path_factory.mktemp("split") / "run", tiny_dataset)


def bytes_on_each(tree) -> dict[jax.Device, int]:
    found: dict[jax.Device, int] = {}
    for leaf in jax.tree.leaves(tree):
        for shard in leaf.addressable_shards:
            found[shard.device] = found.get(shard.device, 0) + shard.data.nbytes
    return found


def test_generate_over_four_devices_gives_the_text_of_one(folder, capsys):
    words = ["generate", folder, "--temperature", 0, "--max-tokens", 12]
    prompts = ["--prompt", "def main(", "--prompt", "import"]
    one = call_json(capsys, *words, *prompts)
    over = call_json(capsys, *words, *prompts, "--tensor", 4)
    assert "split" not in one
    assert over["split"] == {"data": 2, "tensor": 4}
    assert [s["ids"] for s in over["samples"]] == [s["ids"] for s in one["samples"]]
    beams = ["--beams", 3, "--prompt", "import"]
    alone = call_json(capsys, *words, *beams)
    over = call_json(capsys, *words, *beams, "--tensor", 4)
    assert over["split"] == {"data": 1, "tensor": 4}
    assert over["samples"][0]["ids"] == alone["samples"][0]["ids"]


def test_each_device_reads_and_keeps_its_part_of_the_weights(folder):
    whole = load_model(folder)
    before = {id(array) for array in jax.live_arrays()}
    model = load_model(folder, split=Split(4, slots=2))
    assert model.mesh.shape["tensor"] == 4
    total, split, copied = 0, 0, 0
    for leaf in jax.tree.leaves(model.params):
        (shape,) = {shard.data.shape for shard in leaf.addressable_shards}
        total += leaf.nbytes
        if leaf.is_fully_replicated:
            copied += leaf.nbytes
        else:
            assert np.prod(shape) * 4 == leaf.size
            split += leaf.nbytes
    assert copied < 0.02 * total  # norms
    assert set(bytes_on_each(model.params).values()) == {split // 4 + copied}
    for ours, theirs in zip(
        jax.tree.leaves(model.params), jax.tree.leaves(whole.params), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
    served = load(places_of([str(folder)])[0], None, EngineSettings(slots=2), tensor=4)
    weights = served.engine._batch._params
    assert max(bytes_on_each(weights).values()) < 0.27 * sum(
        x.nbytes for x in jax.tree.leaves(weights)
    )
    cache = served.engine._batch._cache
    assert {n * 8 for n in bytes_on_each(cache).values()} == {
        sum(x.nbytes for x in jax.tree.leaves(cache))
    }
    # Nothing that was made meanwhile lies whole on a device, but what is small.
    made = [array for array in jax.live_arrays() if id(array) not in before]
    largest = max(leaf.nbytes for leaf in jax.tree.leaves(weights))
    whole = [a.shape for a in made if a.is_fully_replicated and a.nbytes > largest // 4]
    assert not whole
