"""GGUF files: what transformers and the gguf package read from them is what was exported."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import tiny

from llm_jax.cli import main
from llm_jax.config import ModelConfig, MoeConfig, UserError, YarnRope
from llm_jax.convert.gguf_arch import architecture_of, metadata
from llm_jax.convert.gguf_export import export_gguf
from llm_jax.convert.gguf_vocab import vocabulary
from llm_jax.convert.hf_import import run_config, write_run
from llm_jax.data.tokenizers.sentence_piece import UNIGRAM, SentencePieceTokenizer

gguf = pytest.importorskip("gguf")

LLAMA = ModelConfig(
    vocab_size=600, num_layers=2, d_model=64, num_heads=4, num_kv_heads=2, head_dim=16, d_ff=96,
    max_seq_len=96, norm_eps=1e-5,
)  # fmt: skip
GPT2 = dataclasses.replace(
    LLAMA, activation="gelu", norm="layernorm", positions="learned", num_kv_heads=4,
    biases=("qkv", "out", "mlp"), tie_embeddings=True, d_ff=256, max_seq_len=1024,
)  # fmt: skip
QWEN3 = dataclasses.replace(LLAMA, qk_norm=True, head_dim=128, num_heads=2, num_kv_heads=1)
QWEN2 = dataclasses.replace(LLAMA, biases=("qkv",))


def written(model, tokenizer, out, dtype="float32", **how):
    params = tiny.parameters(model, size=0.1)
    run = tiny.run_config(model=model)
    return export_gguf(run, 0, params, tokenizer, out, run=out.parent, dtype=dtype, **how)


@pytest.mark.parametrize(
    ("model", "dtype", "how"),
    [
        (LLAMA, "float32", {}),
        (LLAMA, "float16", {}),
        (LLAMA, "bfloat16", {}),
        (LLAMA, "q8_0", {}),
        (GPT2, "q8_0", {}),
        (QWEN3, "float32", {}),
        (QWEN2, "float32", {"as_class": "qwen2"}),
    ],
)
def test_transformers_computes_the_same_from_the_file(model, dtype, how, tokenizer, tmp_path):
    pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    made = written(model, tokenizer, tmp_path / "model.gguf", dtype, **how)
    assert made.not_compared is None
    assert made.max_logit_difference <= 1e-4
    assert [path.name for path in tmp_path.iterdir()] == ["model.gguf"]
    kinds = {one.tensor_type.name for one in gguf.GGUFReader(tmp_path / "model.gguf").tensors}
    matrices = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "q8_0": "Q8_0"}[dtype]
    assert kinds == {"F32", matrices}


def test_rows_that_are_no_multiple_of_a_block_are_counted(tokenizer, tmp_path):
    model = dataclasses.replace(LLAMA, d_ff=80)
    made = written(model, tokenizer, tmp_path / "model.gguf", "q8_0", check=False)
    assert made.notes == ["2 of 21 tensors are stored as float16: their rows are no multiple of 32"]


def test_an_output_bias_of_zeros_is_left_out_where_llama_cpp_has_none(tokenizer, tmp_path):
    """The quickstart's model: Qwen3 with biases on q, k and v."""
    model = dataclasses.replace(QWEN3, biases=("qkv",))
    made = written(model, tokenizer, tmp_path / "model.gguf", check=False)
    assert made.architecture == "qwen3"
    names = {one.name for one in gguf.GGUFReader(tmp_path / "model.gguf").tensors}
    assert "blk.0.attn_q.bias" in names and "blk.0.attn_output.bias" not in names
    with pytest.raises(UserError, match="adds no bias after attention"):
        written(
            dataclasses.replace(model, biases=("qkv", "out")), tokenizer, tmp_path / "b.gguf",
            check=False,
        )  # fmt: skip


def test_windows_that_llama_cpp_ignores_end_the_context(tokenizer, tmp_path):
    model = dataclasses.replace(LLAMA, sliding_window=24)
    made = written(model, tokenizer, tmp_path / "model.gguf", check=False, as_class="mistral")
    (note,) = made.notes
    assert "ends with the window, at 24 of 96 tokens" in note
    field = gguf.GGUFReader(tmp_path / "model.gguf").fields["llama.context_length"]
    assert field.contents() == 24


def test_llama_cpp_tells_the_windows_of_exaone_by_its_layers():
    """Models of 64 layers have windows there, whatever the file says, and no others have."""
    local = {"sliding_window": 24, "window_pattern": "LLLG", "rope_pattern": "RRRN"}
    for layers, fields, right in ((64, local, True), (64, {}, False), (2, local, False)):
        model = dataclasses.replace(LLAMA, num_layers=layers, **fields)
        if right:
            found = metadata(model, architecture_of(model, "exaone4"))
            assert found["attention.sliding_window"] == 24
            continue
        with pytest.raises(UserError, match="windows in all models of 64 layers, and in those"):
            architecture_of(model, "exaone4")


def test_the_width_of_experts_is_that_of_the_file(tokenizer, tmp_path):
    """llama.cpp's llama reads the experts' width where that of its MLPs is."""
    model = dataclasses.replace(LLAMA, moe=MoeConfig(experts=4, top_k=2, d_ff=32))
    written(model, tokenizer, tmp_path / "model.gguf", check=False)
    read = gguf.GGUFReader(tmp_path / "model.gguf")
    assert read.fields["llama.feed_forward_length"].contents() == 32
    shapes = {one.name: list(one.shape) for one in read.tensors}
    assert shapes["blk.0.ffn_up_exps.weight"] == [64, 32, 4]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"activation": "geglu"}, "model.activation is 'geglu'"),
        ({"qk_norm": True, "moe": MoeConfig(experts=4, top_k=2, d_ff=32, dense_layers=1)},
         "not all layers have experts"),
        ({"qk_norm": True, "sliding_window": 8, "window_pattern": "LG",
          "rope_scaling": YarnRope(original_max_seq_len=24, truncate=False)}, "truncate"),
        ({"sliding_window": 8, "window_pattern": "LG"}, "A ministral model cannot be written"),
    ],
)  # fmt: skip
def test_what_llama_cpp_does_not_compute_is_refused(changes, sentence, tokenizer, tmp_path):
    with pytest.raises(UserError, match=sentence):
        written(dataclasses.replace(LLAMA, **changes), tokenizer, tmp_path / "a.gguf", check=False)
    assert list(tmp_path.iterdir()) == []


def test_tokenizers_that_llama_cpp_does_not_have_are_refused(tokenizer):
    for field, words in (("remove_extra_whitespaces", "it normalises"), ("", "a Unigram model")):
        proto = type(tokenizer.proto)()
        proto.CopyFrom(tokenizer.proto)
        if field:
            setattr(proto.normalizer_spec, field, True)
        else:
            proto.trainer_spec.model_type = UNIGRAM
        with pytest.raises(UserError, match=words):
            vocabulary(SentencePieceTokenizer(proto.SerializeToString()), 600)


def test_numbers_beyond_float16_are_refused(tokenizer, tmp_path):
    params = tiny.parameters(LLAMA)
    params["blocks"]["mlp"]["up"][0, 0, 0] = 1e5
    run = tiny.run_config(model=LLAMA)
    with pytest.raises(UserError, match=r"blk\.0\.ffn_up\.weight holds 1e\+05"):
        export_gguf(
            run, 0, params, tokenizer, tmp_path / "a.gguf", run=tmp_path, dtype="float16",
            check=False,
        )  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def test_a_run_goes_out_as_gguf_by_the_verb(tokenizer, tmp_path, capsys):
    def call(*words):
        with pytest.raises(SystemExit) as end:
            main(["export", str(run), "--no-check", "--json", "--to", *map(str, words)])
        said = capsys.readouterr()
        return end.value.code, said.out, said.err

    run, out = tmp_path / "run", tmp_path / "model.gguf"
    run.mkdir()
    write_run(run, run_config(LLAMA, run), tiny.parameters(LLAMA), tokenizer)
    code, said, _ = call("gguf", out, "--dtype", "q8_0")
    made = json.loads(said)
    assert code == 0
    assert (made["format"], made["files"], made["dtype"]) == ("gguf", ["model.gguf"], "q8_0")
    assert (made["bytes"], made["not_compared"]) == (out.stat().st_size, "--no-check")
    for words, sentence in (
        (("gguf", out), "exists: choose a new file"),
        (("hf", tmp_path / "hf", "--dtype", "q8_0"), "--dtype q8_0 is for --to gguf"),
        (("gguf", tmp_path / "b", "--max-shard-size", "1G"), "--max-shard-size is for --to hf"),
    ):
        code, _, said = call(*words)
        assert (code, sentence in said) == (2, True), said
    code, _, _ = call("hf", tmp_path / "hf", "--max-shard-size", "40K")
    sizes = [path.stat().st_size for path in (tmp_path / "hf").glob("*.safetensors")]
    assert (code, len(sizes) > 2) == (0, True)
    assert sum(size > 44_000 for size in sizes) == 2  # embedding and unembedding are larger


def test_what_a_file_says_of_the_tokenizer(tokenizer, tmp_path):
    written(LLAMA, tokenizer, tmp_path / "model.gguf", check=False)
    fields = gguf.GGUFReader(tmp_path / "model.gguf").fields
    assert fields["tokenizer.ggml.add_space_prefix"].contents() is False
    assert fields["tokenizer.ggml.tokens"].contents() == tokenizer.pieces(range(600))
    assert len(fields["tokenizer.ggml.scores"].contents()) == 600
    np.testing.assert_array_equal(fields["tokenizer.ggml.bos_token_id"].contents(), 1)
