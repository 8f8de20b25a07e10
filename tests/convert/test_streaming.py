"""Arrays of a checkpoint read layer by layer, and written layer by layer, are the whole arrays."""

from __future__ import annotations

import dataclasses
import json
import resource
from pathlib import Path

import fsspec
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
import tiny
from safetensors.numpy import load_file, save_file

from llm_jax.config import MoeConfig, RecurrentConfig, UserError
from llm_jax.convert import hf_export, hf_import, hf_model, parity, shards
from llm_jax.convert.bucket import opened
from llm_jax.convert.hf_import import run_config, write_run
from llm_jax.convert.tensor_file import open_local, write
from llm_jax.parallel.mesh import make_mesh
from llm_jax.train.checkpoint import Checkpointer
from llm_jax.train.failures import Damaged
from llm_jax.train.layer_save import LayeredArray, save_params
from llm_jax.train.load import load_run
from llm_jax.train.manifest import write_manifest
from llm_jax.train.opened import open_run
from llm_jax.train.state import abstract_state
from llm_jax.train.stored import StoredItem

MODEL = tiny.model_config(vocab_size=640, num_layers=4)
EXPERTS = dataclasses.replace(
    MODEL, qk_norm=True, moe=MoeConfig(experts=4, top_k=2, d_ff=24, dense_layers=1)
)


@pytest.fixture(scope="module")
def run(tokenizer, tmp_path_factory) -> Path:
    """As a run on one device writes it: a chunk holds all layers."""
    out = tmp_path_factory.mktemp("runs") / "run"
    config = run_config(MODEL, out)
    write_run_of(out, config, tiny.parameters(MODEL), tokenizer)
    with ocp.StandardCheckpointer() as writer:
        writer.save(out / "new", tiny.parameters(MODEL))
    place = out / "checkpoints" / "0"
    (place / "params").rename(out / "old")
    (out / "new").rename(place / "params")
    write_manifest(place)
    return out


def write_run_of(out: Path, config, params, tokenizer) -> None:
    out.mkdir(parents=True)
    write_run(out, config, params, tokenizer)


def assert_same(a, b) -> None:
    jax.tree.map(np.testing.assert_array_equal, a, b)


def whole(tree):
    return jax.tree.map(np.asarray, tree)


@pytest.mark.parametrize("model", [MODEL, EXPERTS], ids=["dense", "experts"])
def test_what_is_written_by_layers_is_read_whole_and_by_layers(model, tokenizer, tmp_path):
    params = tiny.parameters(model)
    write_run_of(tmp_path / "run", run_config(model, tmp_path / "run"), params, tokenizer)
    assert_same(load_run(tmp_path / "run").params, params)
    with open_run(tmp_path / "run", scratch=tmp_path / "made") as opened_run:
        assert opened_run.verified
        assert_same(whole(opened_run.params), params)
        made = opened_run.params["blocks"]["attn_norm"]["scale"]
        np.testing.assert_array_equal(made[(2,)], params["blocks"]["attn_norm"]["scale"][2])
        laid = [path.name for path in tmp_path.glob(".made*/*")]
    assert laid == []  # chunks of one layer need no file
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def test_a_chunk_of_all_layers_is_laid_out_once_and_gone_afterwards(run, tmp_path):
    wanted = tiny.parameters(MODEL)
    with open_run(run, scratch=tmp_path / "made") as opened_run:
        assert_same(
            opened_run.params["blocks"]["mlp"]["up"][(3,)], wanted["blocks"]["mlp"]["up"][3]
        )
        assert [p.name for p in tmp_path.glob(".made*/*")] == ["params.blocks.mlp.up"]
        assert_same(whole(opened_run.params), wanted)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_an_error_before_a_map_of_its_file_is_written(run, tmp_path):
    with open_run(run, scratch=tmp_path / "made") as opened_run:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
        try:
            with pytest.raises(OSError, match=r"params\.blocks\.mlp\.up"):
                opened_run.params["blocks"]["mlp"]["up"][(3,)]
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_file_of_weights_that_goes_away_is_said_as_such(tmp_path):
    def parts():
        raise FileNotFoundError(2, "No such file or directory", "weights")
        yield

    with pytest.raises(FileNotFoundError, match="weights"):
        save_params(tmp_path, 0, {"w": LayeredArray((2, 3), np.dtype("f4"), parts)}, {})


def test_chunks_of_several_devices_are_put_together(tmp_path):
    array = np.arange(4 * 6 * 8, dtype=np.float32).reshape(4, 6, 8)
    save = ocp.SaveArgs(chunk_byte_size=4 * 3 * 4 * 4)
    with ocp.PyTreeCheckpointer() as writer:
        writer.save(tmp_path / "item", {"blocks": {"w": array}}, save_args={"blocks": {"w": save}})
    (tmp_path / "scratch").mkdir()
    item = StoredItem(tmp_path / "item", tmp_path / "scratch")
    shapes = {"blocks": {"w": jax.ShapeDtypeStruct(array.shape, array.dtype)}}
    stored = item.tree(shapes, {"blocks"})["blocks"]["w"]
    for layer in range(4):
        np.testing.assert_array_equal(stored[(layer,)], array[layer])
    wrong = {"blocks": {"w": jax.ShapeDtypeStruct((4, 6, 9), array.dtype)}}
    with pytest.raises(Damaged, match=r"'blocks.w' of shape \[4, 6, 8\], not \[4, 6, 9\]"):
        item.tree(wrong, {"blocks"})
    with pytest.raises(Damaged, match=r"has no array 'blocks.v'"):
        item.tree({"blocks": {"v": shapes["blocks"]["w"]}}, {"blocks"})


def test_an_export_of_a_run_equals_that_of_arrays_in_memory(run, tokenizer, tmp_path):
    config = run_config(MODEL, run)
    hf_export.export(
        config, 0, tiny.parameters(MODEL), tokenizer, tmp_path / "a", run=run, check=False
    )
    with open_run(run, scratch=tmp_path / "b") as stored:
        hf_export.export(
            config, 0, stored.params, tokenizer, tmp_path / "b", run=run, check=False,
            shard_bytes=40_000,
        )  # fmt: skip
    whole_file = load_file(tmp_path / "a" / shards.WEIGHTS)
    parts = [load_file(path) for path in sorted((tmp_path / "b").glob("*.safetensors"))]
    assert len(parts) > 2
    assert_same({k: v for part in parts for k, v in part.items()}, whole_file)
    index = json.loads((tmp_path / "b" / shards.INDEX).read_text())
    assert set(index["weight_map"]) == set(whole_file)


def test_weights_that_are_not_finite_are_named_and_nothing_is_left(tokenizer, tmp_path):
    params = tiny.parameters(MODEL)
    params["blocks"]["mlp"]["up"][1, 0, 0] = np.nan
    out = tmp_path / "run"
    write_run_of(out, run_config(MODEL, out), params, tokenizer)
    with (
        pytest.raises(UserError, match=r"not finite numbers \(blocks/mlp/up\)"),
        open_run(out, scratch=tmp_path / "hf") as stored,
    ):
        hf_export.export(
            stored.config, 0, stored.params, tokenizer, tmp_path / "hf", run=out, check=False
        )
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.fixture(scope="module")
def folder(tokenizer, tmp_path_factory) -> Path:
    """A sharded Hugging Face folder in bfloat16."""
    out = tmp_path_factory.mktemp("hf") / "hf"
    hf_export.export(
        tiny.run_config(model=MODEL), 0, tiny.parameters(MODEL), tokenizer, out, run=out.parent,
        check=False, dtype="bfloat16", shard_bytes=40_000,
    )  # fmt: skip
    return out


def test_bfloat16_comes_in_as_bfloat16_and_trains_as_float32(folder, tokenizer, tmp_path):
    made = hf_import.import_run(folder, tmp_path / "run", tokenizer, check=False)
    assert made.not_compared == "--no-check"
    wanted = jax.tree.map(
        lambda leaf: np.asarray(leaf.astype(jnp.bfloat16).astype(np.float32)),
        cut(tiny.parameters(MODEL), tokenizer.vocab_size),
    )
    with open_run(tmp_path / "run", scratch=tmp_path / "made") as stored:
        assert {leaf.dtype for leaf in jax.tree.leaves(stored.params)} == {np.dtype(jnp.bfloat16)}
    loaded = load_run(tmp_path / "run").params
    assert {leaf.dtype for leaf in jax.tree.leaves(loaded)} == {np.dtype(np.float32)}
    assert_same(loaded, wanted)
    abstract = abstract_state(made.config, make_mesh(made.config.parallel))
    trainer = Checkpointer.open(made.config, tokenizer.sha256, abstract)
    assert trainer.newest(abstract) == 0 and trainer.record(0)["step"] == 0
    begun = trainer.restore(abstract, 0)["params"]
    trainer.close()
    assert {leaf.dtype for leaf in jax.tree.leaves(begun)} == {np.dtype(np.float32)}
    assert_same(whole(begun), wanted)


def cut(params, size: int):
    tables = {"embed": {"tokens": params["embed"]["tokens"][:size]}}
    return {**params, **tables, "unembed": params["unembed"][:, :size]}


def test_padding_of_the_vocabulary_stays_here(run, tokenizer, tmp_path):
    made = hf_export.export(
        run_config(MODEL, run), 0, tiny.parameters(MODEL), tokenizer, tmp_path / "hf", run=run,
        check=False,
    )  # fmt: skip
    assert made.notes == [
        "40 padding rows of the vocabulary left out, which no token has: 600 of 640 go out"
    ]
    back, params = hf_model.read(tmp_path / "hf")
    assert back.vocab_size == json.loads((tmp_path / "hf/config.json").read_text())["vocab_size"]
    assert_same(params, cut(tiny.parameters(MODEL), 600))


def test_an_imported_model_keeps_its_padding(tokenizer, tmp_path):
    """What came in goes out bit for bit, whatever its rows stand for."""
    source = tmp_path / "source"
    padded = tiny.run_config(model=MODEL)
    hf_export.export(
        padded, 0, tiny.parameters(MODEL), tokenizer, source, run=tmp_path, check=False
    )
    grown = load_file(source / shards.WEIGHTS)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        grown[name] = np.vstack([grown[name], grown[name][:8]])
    save_file(grown, source / shards.WEIGHTS, metadata={"format": "pt"})
    raw = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(raw | {"vocab_size": 608}))
    made = hf_import.import_run(source, tmp_path / "run", tokenizer, check=False)
    with open_run(tmp_path / "run", scratch=tmp_path / "out") as stored:
        out = hf_export.export(
            made.config, 0, stored.params, tokenizer, tmp_path / "out", run=tmp_path / "run",
            check=False,
        )  # fmt: skip
    assert out.notes == []
    assert_same(load_file(tmp_path / "out" / shards.WEIGHTS), grown)


def test_a_model_behind_an_address(folder, tokenizer, tmp_path):
    memory = fsspec.filesystem("memory")
    for path in folder.iterdir():
        memory.pipe_file(f"/models/tiny/{path.name}", path.read_bytes())
    address = "memory://models/tiny"
    with opened(address, tmp_path / "run") as (local, elsewhere):
        assert not list(local.glob("*.safetensors"))
        made = hf_import.import_run(
            local, tmp_path / "run", tokenizer, check=False, elsewhere=elsewhere, address=address
        )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]
    hf_import.import_run(folder, tmp_path / "same", tokenizer, check=False)
    assert_same(load_run(tmp_path / "run").params, load_run(tmp_path / "same").params)
    history = (tmp_path / "run" / "history.jsonl").read_text()
    assert address in history
    assert made.config.model.num_layers == 4

    first = sorted(path.name for path in folder.glob("*.safetensors"))[0]
    memory.rm_file(f"/models/tiny/{first}")
    with (
        pytest.raises(UserError, match=rf"no file memory://models/tiny/{first}"),
        opened(address, tmp_path / "other") as (local, elsewhere),
    ):
        hf_import.import_run(local, tmp_path / "other", tokenizer, check=False, elsewhere=elsewhere)
    memory.pipe_file("/models/tiny/config.json", b"[]")
    with (
        pytest.raises(UserError, match=r"memory://models/tiny/config.json is not a JSON object"),
        opened(address, tmp_path / "other") as (local, elsewhere),
    ):
        hf_import.import_run(local, tmp_path / "other", tokenizer, check=False, elsewhere=elsewhere)
    with pytest.raises(UserError, match="'memory://models/none' does not exist"):
        opened("memory://models/none", tmp_path / "other").__enter__()


def test_logits_are_not_compared_where_memory_is_short(folder, tokenizer, tmp_path, monkeypatch):
    pytest.importorskip("transformers")
    monkeypatch.setattr(parity, "free_memory", lambda: 500_000_000)
    made = hf_import.import_run(folder, tmp_path / "run", tokenizer, check=True)
    assert made.max_logit_difference is None
    assert made.not_compared == "that would take about 0.6 GB of memory, 0.5 GB are free"
    with open_run(tmp_path / "run", scratch=tmp_path / "hf") as stored:
        out = hf_export.export(
            stored.config, 0, stored.params, tokenizer, tmp_path / "hf", run=tmp_path / "run"
        )
    assert out.max_logit_difference is None
    assert "of memory" in out.not_compared
    raw = json.loads((folder / "config.json").read_text())
    other = tmp_path / "other"
    other.mkdir()
    for path in folder.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    (other / "config.json").write_text(json.dumps(raw | {"magic": 2}))
    with pytest.raises(UserError, match=r"has magic, .* cannot be compared"):
        hf_import.import_run(other, tmp_path / "no", tokenizer, check=True)


def test_memory_that_is_free_is_known():
    free = parity.free_memory()
    assert free is None or 1e8 < free < 1e14


@pytest.mark.parametrize("named", ["llama", "LlamaForCausalLM", "mistral"])
def test_a_model_goes_out_as_the_class_that_is_asked_for(named, tokenizer, tmp_path):
    made = hf_export.export(
        tiny.run_config(model=MODEL), 0, tiny.parameters(MODEL), tokenizer, tmp_path / "hf",
        run=tmp_path, as_class=named,
    )  # fmt: skip
    assert made.architecture == {"mistral": "MistralForCausalLM"}.get(named, "LlamaForCausalLM")
    assert made.max_logit_difference <= 1e-4


@pytest.mark.parametrize(
    ("changes", "named", "sentence"),
    [
        ({"qk_norm": True}, "llama", r"model\.qk_norm \(True\): it can go out as qwen3\."),
        ({}, "mixtral", r"model\.moe \(None\): it can go out as llama, mistral"),
        ({"sliding_window": 8}, "llama", r"model\.sliding_window \(8\)"),
        ({}, "lama", r"--as is 'lama': did you mean 'llama'\?"),
    ],
)
def test_a_class_that_computes_something_else_is_refused(
    changes, named, sentence, tokenizer, tmp_path
):
    model = dataclasses.replace(MODEL, **changes)
    with pytest.raises(UserError, match=sentence):
        hf_export.export(
            tiny.run_config(model=model), 0, tiny.parameters(model), tokenizer, tmp_path / "hf",
            run=tmp_path, as_class=named,
        )  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def test_a_head_that_is_not_the_table_is_refused_where_they_are_one(folder, tmp_path):
    """transformers keeps both, and computes something else than one table would."""
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    raw = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(raw | {"tie_word_embeddings": True}))
    with pytest.raises(UserError, match=r"'lm_head\.weight' with other values than 'model\.embed"):
        hf_model.read(tmp_path)


def test_a_recurrent_model_has_no_class(tokenizer, tmp_path):
    model = RecurrentConfig(vocab_size=600, num_layers=1, d_model=8, max_seq_len=64)
    with pytest.raises(UserError, match="'recurrent', of which transformers has no class"):
        hf_export.export(
            tiny.run_config(model=model), 0, {}, tokenizer, tmp_path / "hf", run=tmp_path,
            as_class="llama",
        )  # fmt: skip


def header_of(**changes) -> bytes:
    entry = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]} | changes
    raw = json.dumps({"w": entry}).encode()
    return len(raw).to_bytes(8, "little") + raw


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "it has 0 bytes"),
        ((2**60).to_bytes(8, "little") + b"{}", "its header would have"),
        (header_of(), "its header says"),
        (header_of() + bytes(28), "its header says"),
        (header_of(data_offsets=[4, 28]) + bytes(28), "overlap or leave a gap"),
        (header_of(data_offsets=[0, 20]) + bytes(20), "'w' has 20 bytes, its shape says otherwise"),
        (header_of(shape=[-1, 3]) + bytes(24), "'w' are not whole numbers"),
        (header_of(shape=[2, 3.5]) + bytes(24), "'w' are not whole numbers"),
        (header_of(data_offsets=3) + bytes(24), "does not describe 'w'"),
        ((2).to_bytes(8, "little") + b"[]", "is not a JSON object"),
    ],
)
def test_a_safetensors_file_that_lies_is_one_sentence(content, why, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"model.safetensors is not a complete .*{why}"):
        open_local(path)


def test_a_safetensors_file_is_that_of_the_library(tmp_path):
    arrays = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "b": np.ones((0, 4), np.float32),
        "c": np.array(2.0, np.float32),
    }
    shapes = {name: array.shape for name, array in arrays.items()}
    write(tmp_path / "ours", shapes, np.dtype(np.float32), iter(arrays.values()))
    assert_same(load_file(tmp_path / "ours"), arrays)
    save_file(arrays, tmp_path / "theirs")
    file = open_local(tmp_path / "theirs")
    assert_same({name: file.read(name) for name in file.entries}, arrays)
