"""`generate` on Hugging Face folders: what a run makes that was imported from it, and what cannot
be."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import jax
import pytest
import tiny
from foreign import foreign_tokenizer
from task_run import random_run
from verb_calls import call, call_json

from llm_jax.config import EncoderConfig, EncoderDecoderConfig, RecurrentConfig, UserError
from llm_jax.convert.hf_import import write_run
from llm_jax.data.dataset import TokenDataset
from llm_jax.runs.claim import only_writer

SMALL = {"num_layers": 1, "d_model": 32, "num_heads": 2, "d_ff": 48, "max_seq_len": 64}
KINDS: dict[str, Any] = {
    "encoder": EncoderConfig(vocab_size=tiny.VOCAB, **SMALL),
    "t5": EncoderDecoderConfig(
        vocab_size=tiny.VOCAB + 128, num_decoder_layers=1, head_dim=16, **SMALL
    ),
    "recurrent": RecurrentConfig(
        vocab_size=tiny.VOCAB, num_layers=1, d_model=32, max_seq_len=256
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def place(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs, and with `-hf` in their names their exports: `model`, `short` of a smaller context, and
    those of `KINDS`, of which `recurrent` has no export."""
    place = tmp_path_factory.mktemp("folders")
    random_run(place / "model", tiny_dataset)
    random_run(place / "short", tiny_dataset, max_seq_len=64, num_layers=1)
    tokenizer = TokenDataset.open(tiny_dataset).tokenizer
    for name, model in KINDS.items():
        (place / name).mkdir()
        objective = {"encoder": "masked", "t5": "spans"}.get(name, "next_token")
        config = tiny.run_config(place / name, tiny_dataset, model=model, objective=objective)
        write_run(place / name, config, jax.device_get(tiny.parameters(model)), tokenizer)
    return place


@pytest.fixture(scope="module")
def exported(place: Path) -> Path:
    from llm_jax.cli import main

    for name in ("model", "short", "encoder", "t5"):
        words = ["export", place / name, "--to", "hf", place / f"{name}-hf", "--no-check"]
        with pytest.raises(SystemExit) as stopped:
            main([str(word) for word in words])
        assert stopped.value.code == 0
    return place


def texts(capsys: Any, *words: object) -> list[Any]:
    made = call_json(capsys, "generate", *words, "--prompt", "import", "--max-tokens", 12)
    return [(one["text"], one["ids"]) for one in made["samples"]]


@pytest.mark.slow
def test_a_folder_makes_what_a_run_does_that_was_imported_from_it(exported, capsys):
    hf, run = exported / "model-hf", exported / "imported"
    call_json(capsys, "import", hf, run, "--no-check")
    sampled = ["--samples", 2, "--seed", 3]
    assert texts(capsys, hf, *sampled) == texts(capsys, f"{run}@0", *sampled)
    greedy = texts(capsys, hf, "--temperature", 0)
    made = call_json(
        capsys, "generate", hf, "--temperature", 0, "--prompt", "import", "--max-tokens", 12,
        "--draft", exported / "short-hf",
    )  # fmt: skip
    assert [(one["text"], one["ids"]) for one in made["samples"]] == greedy
    assert made["speculation"]["drafted"] > 0


@pytest.mark.slow
def test_targets_of_an_encoder_decoders_folder(exported, capsys):
    hf, run = exported / "t5-hf", exported / "imported-t5"
    call_json(capsys, "import", hf, run, "--no-check")
    assert texts(capsys, hf, "--beams", 2) == texts(capsys, run, "--beams", 2)
    code, _, err = call(capsys, "generate", hf)
    assert code == 2 and "give --temperature 0, or --beams N" in err


BROKEN = {
    "no-json": ("config.json", b"{"),
    "no-object": ("config.json", b"[]"),
    "no-weights": ("model.safetensors", None),
    "cut-weights": ("model.safetensors", b"\x08\0\0\0\0\0\0\0{"),
    "no-tokenizer": ("tokenizer.json", None),
    "other-tokenizer": ("tokenizer.model", foreign_tokenizer),
}
"""Folder → the file that is wrong in it, and what it holds."""


def broken(folder: Path, name: str) -> Path:
    file, content = BROKEN[name]
    made = shutil.copytree(folder, folder.parent / name, dirs_exist_ok=True)
    (made / "tokenizer.model").unlink(missing_ok=True)
    (made / file).unlink(missing_ok=True)
    if callable(content):
        (made / "tokenizer.json").unlink()
        content = content().content
    if content is not None:
        (made / file).write_bytes(content)
    return made


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["model-hf", "--step", 3], "is not a run: it has no step 3"),
        (["model-hf@3"], "is not a run: it has no step 3"),
        (["model@0", "--step", 1], "is step 0, and --step is 1"),
        (["model@7"], "has no step 7: it has 0"),
        (["model-hf", "--keep"], "is a Hugging Face folder: leave it out"),
        (["encoder-hf"], "generate is for decoders, and model.kind is 'encoder'"),
        (["gguf"], "is GGUF, which is for llama.cpp"),
        (["gguf/model.gguf"], "is GGUF, which is for llama.cpp"),
        (["nowhere"], "There is no model in"),
        (["no-json"], "config.json"),
        (["no-object"], "is not a JSON object"),
        (["no-weights"], "has neither model.safetensors nor"),
        (["cut-weights"], "model.safetensors"),
        (["no-tokenizer"], "has no tokenizer"),
        (["other-tokenizer"], "they do not belong together"),
        (["model", "--draft", "short-hf", "--max-tokens", 80], "context of the draft, which is 64"),
        (["model-hf", "--draft", "short", "--max-tokens", 80], "context of the draft, which is 64"),
        (["model-hf", "--draft", "encoder-hf"], "--draft is for decoders"),
        (["model-hf", "--draft", "no-weights"], "has neither model.safetensors nor"),
        (["model-hf", "--draft", "other-tokenizer"], "they do not belong together"),
        (["recurrent", "--speculate", 2], "The model keeps a state from which no token"),
        (["model", "--draft", "recurrent"], "The draft keeps a state from which no token"),
        (["t5-hf", "--draft", "t5-hf"], "made without --draft"),
    ],
)
def test_what_cannot_be_is_said_before_weights_are_read(
    words, sentence, exported, capsys, monkeypatch
):
    for name in BROKEN:
        if name in words:
            broken(exported / "model-hf", name)
    if words[0].startswith("gguf"):
        (exported / "gguf").mkdir(exist_ok=True)
        (exported / "gguf" / "model.gguf").write_bytes(b"GGUF")
    monkeypatch.setattr("llm_jax.language_model.load_described", None)
    monkeypatch.chdir(exported)
    code, out, err = call(capsys, "generate", *words)
    assert (code, out) == (2, ""), err
    assert sentence in err.splitlines()[-1]


@pytest.mark.slow
def test_a_draft_is_checked_before_weights_are_read_in_serve_too(exported, capsys, monkeypatch):
    monkeypatch.setattr("llm_jax.serve.opening.load", None)
    monkeypatch.chdir(exported)

    def said(*words):
        code, out, err = call(capsys, "serve", *words, "--port", 0, "--dry-run")
        assert (code, out) == (2, ""), err
        return err.splitlines()[-1]

    for draft in ("short", "short-hf"):
        assert "set max_len to 64, or take another" in said("model-hf", "--draft", draft)
        flags = ("--draft", draft, "--max-len", 64)
        assert call_json(capsys, "serve", "model-hf", *flags, "--port", 0, "--dry-run")["models"]
    assert "--draft is for decoders" in said("model-hf", "--draft", "encoder-hf")
    assert "The draft keeps a state" in said("model-hf", "--draft", "recurrent")
    assert "The model keeps a state" in said("recurrent", "--speculate", 2)
    assert "more than the model's context of 256" in said("model-hf", "--max-len", 300)
    assert "serve is for decoders" in said("encoder-hf")
    assert "serve is for decoders" in said("t5-hf")
    assert "has neither model.safetensors nor" in said(broken(exported / "model-hf", "no-weights"))


def test_a_run_that_is_being_written_is_noted_in_the_words_of_each_verb(place, capsys, monkeypatch):
    def stop(*_: object, **__: object) -> None:
        raise UserError("It is not read.")

    monkeypatch.setattr("llm_jax.language_model.load_described", stop)
    model = place / "model"
    flags = ("--max-tokens", 8)
    with only_writer(model, "llm-jax train", inside=True):
        for words, end in (
            (["generate", model, *flags], "makes the texts."),
            (["generate", place / "short", "--draft", model, *flags], "drafts tokens, and"),
            (["serve", model, "--port", 0, "--dry-run"], "is served, and stays what it is."),
            (["serve", place / "short", "--draft", model, "--port", 0, "--dry-run"], "drafts tok"),
        ):
            _, _, err = call(capsys, *words)
            assert err.count("is being written by `llm-jax train`") == 1, err
            assert f": step 0 {end}" in err
