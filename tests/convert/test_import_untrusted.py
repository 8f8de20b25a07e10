"""A folder from somewhere: every defect is one sentence, and nothing is left behind."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny
from safetensors.numpy import load_file, save_file

from llm_jax.config import UserError
from llm_jax.convert import hf_config, hf_export, hf_import, hf_model, shards
from llm_jax.convert.added_tokens import require_known
from llm_jax.convert.own_tokenizer import tokenizer_of

MODEL = tiny.model_config(vocab_size=600)


@pytest.fixture(scope="module")
def params():
    return tiny.parameters(MODEL, size=0.1)


@pytest.fixture(scope="module")
def exported(tokenizer, params, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("export") / "hf"
    config = tiny.run_config(model=MODEL)
    hf_export.export(config, 0, params, tokenizer, out, run=out.parent, check=False)
    return out


@pytest.fixture
def folder(exported, tmp_path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "hf"))


def change_tensors(folder: Path, change) -> None:
    tensors = load_file(folder / shards.WEIGHTS)
    change(tensors)
    save_file(tensors, folder / shards.WEIGHTS, metadata={"format": "pt"})


def change_config(folder: Path, **fields) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_a_missing_a_surplus_and_a_misshapen_tensor(folder):
    name = "model.layers.1.mlp.up_proj.weight"
    kept = load_file(folder / shards.WEIGHTS)
    change_tensors(folder, lambda tensors: tensors.pop(name))
    with pytest.raises(UserError, match=f"has no tensor '{name}'"):
        hf_model.read(folder)
    save_file(kept | {"model.extra": np.zeros(2, np.float32)}, folder / shards.WEIGHTS)
    with pytest.raises(
        UserError, match=r"1 tensor that its config.json does not use: model\.extra"
    ):
        hf_model.read(folder)
    save_file(kept | {name: kept[name].T.copy()}, folder / shards.WEIGHTS)
    with pytest.raises(UserError, match=r"has shape \[32, 64\], but its .* says \[64, 32\]"):
        hf_model.read(folder)


def test_whole_numbers_are_no_weights(folder):
    name = "model.norm.weight"
    change_tensors(folder, lambda t: t.update({name: np.ones(32, np.int8)}))
    with pytest.raises(UserError, match=r"has type I8: only F32.*, not quantised weights"):
        hf_model.read(folder)


def test_a_truncated_file_and_no_file(folder):
    whole = (folder / shards.WEIGHTS).read_bytes()
    (folder / shards.WEIGHTS).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="is not a complete safetensors file"):
        hf_model.read(folder)
    (folder / shards.WEIGHTS).unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04")
    with pytest.raises(UserError, match=r"only safetensors are read, never pickled \.bin"):
        hf_model.read(folder)


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/passwd", "a/b.safetensors", "", 3])
def test_an_index_cannot_name_a_file_outside_of_the_folder(folder, name):
    shutil.copy(folder / shards.WEIGHTS, folder.parent / shards.WEIGHTS)
    index = {"weight_map": {"model.norm.weight": name}}
    (folder / shards.INDEX).write_text(json.dumps(index))
    with pytest.raises(UserError, match="only files in the folder itself are read"):
        hf_model.read(folder)


def test_a_link_out_of_the_folder_is_not_followed(folder):
    (folder / shards.WEIGHTS).rename(folder.parent / "elsewhere.safetensors")
    (folder / shards.WEIGHTS).symlink_to(folder.parent / "elsewhere.safetensors")
    with pytest.raises(UserError, match="a link that leads out of the folder"):
        hf_model.read(folder)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"model_type": "mamba"}, "model_type 'mamba': supported are llama"),
        ({"quantization_config": {"bits": 4}}, "quantised weights are not read"),
        ({"rotary_magic": 2}, "rotary_magic = 2, .* does not know"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor = 0.5: only 1.0 is supported"),
        ({"hidden_act": "relu"}, "hidden_act 'relu'"),
        ({"rope_parameters": {"rope_type": "longrope", "factor": 2.0}}, "rope_type 'longrope'"),
        (
            {"num_attention_heads": 7},
            "num_heads is 7",
        ),
        ({"vocab_size": None}, "vocab_size is None"),
    ],
)
def test_a_config_that_means_something_else_is_refused(folder, fields, sentence):
    change_config(folder, **fields)
    with pytest.raises(UserError, match=sentence):
        hf_model.read(folder)


def test_sharded_weights_come_back_the_same(params, tmp_path):
    files = hf_export.write_weights(tmp_path, MODEL, params, "float32", shard_bytes=60_000)
    assert len(files) > 4
    assert files[-1] == shards.INDEX
    sizes = [(tmp_path / file).stat().st_size for file in files[:-1]]
    # The table of 600 x 32 floats is larger than a file may be: it has one for itself.
    assert all(size < 60_000 + 4_000 for size in sizes if size < 76_800)
    index = json.loads((tmp_path / shards.INDEX).read_text())
    assert set(index["weight_map"].values()) == set(files[:-1])
    assert index["metadata"]["total_size"] == sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    (tmp_path / "config.json").write_text(json.dumps(config_json()))
    _, back = hf_model.read(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, back, params)
    (tmp_path / files[1]).unlink()
    with pytest.raises(UserError, match="There is no file"):
        hf_model.read(tmp_path)


def config_json() -> dict:
    class Ids:
        bos_id, eos_id, pad_id = 1, 2, 3

    return hf_config.to_hf(MODEL, Ids, "float32")  # type: ignore[arg-type]


def test_what_no_architecture_has_is_named(tokenizer, params, tmp_path):
    model = dataclasses.replace(MODEL, logit_softcap=30.0)
    with pytest.raises(UserError, match=r"LlamaForCausalLM, lacks model\.logit_softcap \(30\.0\)"):
        hf_export.export(
            tiny.run_config(model=model), 0, params, tokenizer, tmp_path / "hf", run=tmp_path
        )
    assert list(tmp_path.iterdir()) == []


def test_a_difference_of_logits_leaves_nothing_behind(tokenizer, params, tmp_path, monkeypatch):
    pytest.importorskip("transformers")
    written = hf_config.to_hf

    def wrong(*args):
        return written(*args) | {"rms_norm_eps": 1e-2}

    monkeypatch.setattr(hf_config, "to_hf", wrong)
    out = tmp_path / "hf"
    with pytest.raises(UserError, match=r"differ by .* nothing was exported"):
        hf_export.export(tiny.run_config(model=MODEL), 0, params, tokenizer, out, run=tmp_path)
    assert list(tmp_path.iterdir()) == []


ADDED = {
    "added_tokens.json": {"<|im_end|>": 600},
    "tokenizer.json": {"added_tokens": [{"id": 600, "content": "<|im_end|>", "special": True}]},
    "tokenizer_config.json": {"added_tokens_decoder": {"600": {"content": "<|im_end|>"}}},
}


@pytest.mark.parametrize("file", ADDED)
def test_tokens_beside_the_sentencepiece_model_are_refused_by_name(
    file, folder, tokenizer, tmp_path
):
    known = {"added_tokens.json": {"<s>": 1, "</s>": 2}}
    (folder / "added_tokens.json").write_text(json.dumps(known["added_tokens.json"]))
    given = tmp_path / "tokenizer.model"
    given.write_bytes(tokenizer.content)
    assert tokenizer_of(folder, given).sha256 == tokenizer.sha256
    (folder / file).write_text(json.dumps(ADDED[file]))
    with pytest.raises(UserError, match=r"'<\|im_end\|>' is 600"):
        tokenizer_of(folder, given)


@pytest.mark.parametrize(
    ("file", "text", "sentence"),
    [
        ("added_tokens.json", '{"</s>": 1}', "'</s>' is 1"),
        ("added_tokens.json", '{"a": -1}', "'a' is -1"),
        ("added_tokens.json", '{"a": "b"}', "'a' with id 'b'"),
        ("added_tokens.json", "[" * 100_000, "is nested deeper"),
        ("added_tokens.json", "[]", "is not a JSON object"),
        ("tokenizer.json", '{"added_tokens": [3]}', "None with id None"),
        ("tokenizer.json", '{"added_tokens": 3}', "None with id None"),
        (
            "tokenizer_config.json",
            '{"added_tokens_decoder": {"%s": "a"}}' % ("9" * 5000),
            "'a' with id '999",
        ),
    ],
)
def test_added_tokens_that_are_broken_or_elsewhere(file, text, sentence, folder, tokenizer):
    (folder / file).write_text(text)
    with pytest.raises(UserError, match=sentence):
        require_known(folder, tokenizer)


def test_files_have_the_permissions_of_the_umask(tokenizer, params, tmp_path):
    before = os.umask(0o027)
    try:
        hf_export.export(
            tiny.run_config(model=MODEL), 0, params, tokenizer, tmp_path / "hf", run=tmp_path,
            check=False,
        )  # fmt: skip
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "hf").iterdir()}
    assert set(modes.values()) == {0o640}, modes
    assert (tmp_path / "hf").stat().st_mode & 0o777 == 0o750


def test_an_import_that_fails_leaves_nothing_behind(folder, tokenizer, tmp_path):
    change_tensors(folder, lambda tensors: tensors.pop("lm_head.weight"))
    with pytest.raises(UserError, match=r"has no tensor 'lm_head\.weight'"):
        hf_import.import_run(folder, tmp_path / "run", tokenizer, check=False)
    assert not (tmp_path / "run").exists()


def test_a_run_is_not_imported_to_a_path_that_tensorstore_would_split(folder, tokenizer, tmp_path):
    with pytest.raises(UserError, match=r"RUN is .*has a backslash"):
        hf_import.import_run(folder, tmp_path / "a\\b", tokenizer, check=False)
    assert [path.name for path in tmp_path.iterdir()] == ["hf"]
