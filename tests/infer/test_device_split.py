"""Verbs over several devices: texts and scores of one, with a part of the weights on each."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny
from task_run import random_run
from verb_calls import call, call_json

from llm_jax.config import RecurrentConfig, UserError
from llm_jax.infer import device_split
from llm_jax.infer.device_split import Split
from llm_jax.language_model import load_model


@pytest.fixture(scope="module")
def folder(tiny_dataset, tmp_path_factory):
    return random_run(tmp_path_factory.mktemp("split") / "run", tiny_dataset)


def bytes_on_each(tree) -> dict[jax.Device, int]:
    found: dict[jax.Device, int] = {}
    for leaf in jax.tree.leaves(tree):
        for shard in leaf.addressable_shards:
            found[shard.device] = found.get(shard.device, 0) + shard.data.nbytes
    return found


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_hugging_face_folder_is_split_from_the_hosts_memory(folder, tmp_path, capsys):
    assert call(capsys, "export", folder, "--to", "hf", tmp_path / "hf", "--no-check")[0] == 0
    model = load_model(tmp_path / "hf", split=Split(2, slots=1))
    assert dict(model.mesh.shape) | {"tensor": 2, "data": 1} == dict(model.mesh.shape)
    each = bytes_on_each(model.params)
    assert len(each) == 2
    assert max(each.values()) < 0.51 * sum(leaf.nbytes for leaf in jax.tree.leaves(model.params))
    one = load_model(folder).generate("def", max_tokens=4, temperature=0)
    assert model.generate("def", max_tokens=4, temperature=0) == one


TASK = """task: made
dataset_path: json
dataset_kwargs: {data_files: {test: %s}}
test_split: test
output_type: generate_until
doc_to_text: "{{q}}"
doc_to_target: "x"
generation_kwargs: {until: ["\\n"], max_gen_toks: 8, do_sample: false}
metric_list: [{metric: exact_match}]
"""


@pytest.mark.slow
def test_scores_of_tasks_over_four_devices_are_those_of_one(folder, tmp_path, capsys):
    """Of answers that are chosen, and of texts that are made."""
    pytest.importorskip("lm_eval")
    (tmp_path / "d.jsonl").write_text('{"q": "def"}\n{"q": "import "}\n{"q": "class A"}\n')
    (tmp_path / "made.yaml").write_text(TASK % (tmp_path / "d.jsonl"))
    words = ["eval", folder, "--tasks", "copying_en", "made", "--include", tmp_path]
    words += ["--limit", 4, "--keep", "--samples"]
    kept = {}
    for tensor in (None, 4):
        made = call_json(capsys, *words, *(["--tensor", tensor] if tensor else []))
        assert made.get("split") == ({"data": 2, "tensor": 4} if tensor else None)
        texts = Path(made["task_results"]["samples"]["made"]).read_text()
        kept[tensor] = made["task_results"], [json.loads(x)["resps"] for x in texts.splitlines()]
    (one, texts), (over, texts_over) = kept.values()
    assert texts_over == texts
    for task in one["tasks"]:
        for name, figure in one["tasks"][task]["metrics"].items():
            assert over["tasks"][task]["metrics"][name]["value"] == pytest.approx(
                figure["value"], rel=1e-4
            )


@pytest.mark.parametrize(
    ("tensor", "says"),
    [
        (16, "has 8 devices: give 8 or fewer"),
        (3, r"num_heads \(8\), .*num_kv_heads \(4\).* give 1 or 2 or 4"),
        (8, r"does not divide model.num_kv_heads \(4\)"),
    ],
)
def test_a_split_that_cannot_be_is_refused_in_a_sentence(tensor, says):
    config = tiny.run_config(model=tiny.model_config())
    with pytest.raises(UserError, match=says):
        Split(tensor).mesh(config)


def test_a_recurrent_model_is_split_by_its_width():
    layers = RecurrentConfig(vocab_size=64, num_layers=2, d_model=32, max_seq_len=64)
    config = tiny.run_config(model=layers)
    assert Split(8, slots=1).mesh(config).size == 8
    with pytest.raises(UserError, match=r"does not divide model.d_model \(32\)"):
        Split(5).mesh(config)


def test_the_fewest_devices_with_enough_memory_share_a_matrix(monkeypatch):
    """Without the flag. What is left divides the slots, where it can."""
    config = tiny.run_config(model=tiny.model_config())
    assert Split().mesh(config) is None  # a CPU does not say how much it has
    chosen = {}
    # 28,832 parameters in float32 twice, 231 kB, and 33 kB of cache for a slot.
    for limit in (320_000, 200_000, 110_000, 10_000):
        monkeypatch.setattr(device_split, "_memory", lambda devices, limit=limit: limit)
        shape = Split(slots=6).mesh(config).shape
        chosen[limit] = shape["data"], shape["tensor"]
    assert chosen == {320_000: (6, 1), 200_000: (3, 2), 110_000: (2, 4), 10_000: (2, 4)}
