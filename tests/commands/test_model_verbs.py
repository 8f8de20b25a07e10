"""`eval`, `generate`, `export`, `import` through the command line, on a run of random weights."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny
from foreign import foreign_tokenizer
from verb_calls import call, call_json

from llm_jax.config import DataConfig
from llm_jax.convert.hf_import import write_run
from llm_jax.data.dataset import TokenDataset
from llm_jax.train.load import load_run


@pytest.fixture(scope="module")
def run_folder(tiny_dataset, tmp_path_factory) -> Path:
    dataset = TokenDataset.open(tiny_dataset)
    # The vocabulary is padded, as the hardware likes it.
    model = tiny.model_config(vocab_size=dataset.tokenizer.vocab_size + 8, max_seq_len=96)
    config = tiny.run_config(
        out=tmp_path_factory.mktemp("run") / "run",
        model=model,
        data=DataConfig(path=str(tiny_dataset), seq_len=64, batch_size=8),
    )
    folder = Path(config.out)
    folder.mkdir()
    params = tiny.parameters(model, size=0.1)
    write_run(folder, config, jax.device_get(params), dataset.tokenizer)
    return folder


@pytest.mark.slow
def test_eval_of_the_validation_split_and_of_a_text(run_folder, tiny_dataset, tmp_path, capsys):
    made = call_json(capsys, "eval", run_folder, "--ngram", 3)
    # Random weights know less than chance over the vocabulary; a trigram knows far more.
    assert made["loss"] > 5
    assert made["tasks"] == {}
    gram = made["ngram"]["whole train split"]
    assert gram["bits_per_byte"] < 0.7 * made["bits_per_byte"]
    assert (gram["tokens"], gram["bytes"]) == (made["tokens"], made["bytes"])
    text = tmp_path / "猫.txt"
    text.write_text("吾輩は猫である。\n", encoding="cp932")
    (tmp_path / "no-text.jsonl").write_text("{}\n")
    one = call_json(capsys, "eval", run_folder, "--text", tmp_path, "--encoding", "cp932")
    assert (one["lost"]["count"], one["lost"]["of"]) == (1, 2)
    assert one["bytes"] == len("吾輩は猫である。\n".encode())
    code, _, err = call(capsys, "eval", run_folder, "--text", text)
    assert code == 2
    assert "not utf-8 1" in err


def test_generate(run_folder, tmp_path, capsys):
    prompt = tmp_path / "prompt.txt"
    prompt.write_text("猫", encoding="utf-8")
    words = ["generate", run_folder, "--prompt", "def", "--prompt-file", prompt, "--max-tokens", 20]
    made = call_json(capsys, *words, "--temperature", 0)
    assert [sample["prompt"] for sample in made["samples"]] == ["def", "猫"]
    assert made["text"] == made["samples"][0]["text"]
    assert made["tokens"] == sum(len(sample["ids"]) for sample in made["samples"])
    assert made["tokens_per_second"] > 0
    assert call_json(capsys, *words, "--temperature", 0)["text"] == made["text"]
    beams = call_json(
        capsys, "generate", run_folder, "--prompt", "def", "--max-tokens", 20, "--beams", 1
    )
    assert beams["samples"][0]["ids"] == made["samples"][0]["ids"]


@pytest.mark.parametrize(
    ("raw", "prompt"),
    [
        (b"\xef\xbb\xbfdef main(\n", "def main("),
        (b"a\r\nb\r\n", "a\nb"),
        (b"two newlines\n\n", "two newlines\n"),
        ("猫".encode(), "猫"),
    ],
)
def test_a_prompt_file_is_the_text_that_its_author_sees(run_folder, raw, prompt, tmp_path, capsys):
    path = tmp_path / "prompt.txt"
    path.write_bytes(raw)
    words = ["generate", run_folder, "--prompt-file", path, "--max-tokens", 1, "--temperature", 0]
    made = call_json(capsys, *words)
    assert made["samples"][0]["prompt"] == prompt
    direct = call_json(capsys, *words[:2], "--prompt", prompt, *words[4:])
    assert direct["samples"][0]["ids"] == made["samples"][0]["ids"]


def test_weights_that_are_not_numbers_are_refused_by_every_reader(
    run_folder, tmp_path, tiny_dataset, capsys
):
    trained = load_run(run_folder)
    params = jax.tree.map(np.array, trained.params)
    params["blocks"]["mlp"]["up"][1, 2, 3] = np.nan
    folder, out = tmp_path / "run", tmp_path / "hf"
    folder.mkdir()
    write_run(folder, trained.config, params, TokenDataset.open(tiny_dataset).tokenizer)
    generate = ["generate", "--max-tokens", 2]
    for words in (["eval"], generate, ["export", "--no-check", "--to", "hf", out]):
        code, said, err = call(capsys, words[0], folder, *words[1:])
        assert (code, said) == (2, "")
        assert "not finite numbers (blocks/mlp/up)" in err.splitlines()[-1]
    assert not out.exists()


def test_a_tokenizer_that_was_swapped_is_refused(run_folder, tmp_path, capsys):
    folder = Path(shutil.copytree(run_folder, tmp_path / "run"))
    (folder / "tokenizer.model").write_bytes(foreign_tokenizer().content)
    words = ["--max-tokens", 1, "--temperature", 0]
    code, _, err = call(capsys, "generate", folder, *words)
    assert code == 2
    assert "is not the one that checkpoint 0 was trained with" in err
    (folder / "tokenizer.model").unlink()
    code, _, err = call(capsys, "export", folder, "--no-check", "--to", "hf", tmp_path / "hf")
    assert code == 2
    assert "There is no tokenizer" in err


@pytest.mark.slow
def test_losses_that_are_too_large_for_a_perplexity(run_folder, tmp_path, tiny_dataset, capsys):
    trained = load_run(run_folder)
    for factor, code, words in ((1e5, 0, "perplexity too large"), (1e38, 2, "not finite numbers")):
        params = dict(trained.params, unembed=np.asarray(trained.params["unembed"]) * factor)
        folder = tmp_path / f"run{factor:g}"
        folder.mkdir()
        tokenizer = TokenDataset.open(tiny_dataset).tokenizer
        write_run(folder, trained.config, params, tokenizer)
        text = tmp_path / "text.txt"
        text.write_text("A text.", encoding="utf-8")
        got, out, err = call(capsys, "eval", folder, "--text", text)
        assert got == code
        assert words in (out if code == 0 else err)
        assert "inf" not in out.replace("infer", "") and "nan" not in out


@pytest.mark.slow
def test_export_import_and_export_again(run_folder, tmp_path, capsys):
    pytest.importorskip("transformers")
    out, back, again = tmp_path / "hf", tmp_path / "back", tmp_path / "again"
    made = call_json(capsys, "export", run_folder, "--to", "hf", out)
    assert made["format"] == "hf"
    assert made["max_logit_difference"] <= 1e-4
    assert sorted(made["files"]) == sorted(path.name for path in out.iterdir())
    assert "none recorded" in (out / "README.md").read_text()
    assert call_json(capsys, "import", out, back)["max_logit_difference"] <= 1e-4
    prompt = ["--prompt", "def", "--max-tokens", 10, "--temperature", 0]
    wanted = call_json(capsys, "generate", run_folder, *prompt)["text"]
    assert call_json(capsys, "generate", back, *prompt)["text"] == wanted
    code, said, _ = call(
        capsys, "export", back, "--to", "hf", again, "--dtype", "bfloat16", "--no-check"
    )
    assert code == 0
    assert "not compared" in said
    assert (again / "model.safetensors").stat().st_size < 0.6 * (
        out / "model.safetensors"
    ).stat().st_size
    code, _, err = call(capsys, "export", run_folder, "--to", "hf", out)
    assert code == 2
    assert "is not empty" in err


READERS = {
    "eval": ["eval", "RUN"],
    "generate": ["generate", "RUN", "--max-tokens", 2],
    "export": ["export", "RUN", "--to", "hf", "out", "--no-check"],
}


def damage(checkpoint: Path, how: str) -> str:
    """Does it to the largest file of the weights, and returns the words for it."""
    files = (path for path in (checkpoint / "params").rglob("*") if path.is_file())
    file = max(files, key=lambda path: path.stat().st_size)
    name, whole = file.relative_to(checkpoint), file.read_bytes()
    if how == "manifest":
        (checkpoint / "manifest.json").write_text('{"a": 1}')
        return "its manifest.json cannot be read"
    if how == "missing":
        file.unlink()
        return f"{name} is missing"
    if how == "short":
        file.write_bytes(whole[:-1])
        return f"{name} has {len(whole) - 1} bytes instead of {len(whole)}"
    middle = len(whole) // 2
    file.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    return f"{name} has another checksum"


def state_of(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("how", ["flipped", "short", "missing", "manifest"])
@pytest.mark.parametrize("verb", READERS)
def test_a_damaged_checkpoint_is_not_read(verb, how, run_folder, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    damaged = shutil.copytree(run_folder, tmp_path / "run")
    shutil.copytree(damaged / "checkpoints" / "0", damaged / "checkpoints" / "5")
    words = damage(damaged / "checkpoints" / "5", how)
    before = state_of(tmp_path)
    command = [damaged if word == "RUN" else word for word in READERS[verb]]
    code, out, err = call(capsys, *command)
    assert (code, out) == (1, "")
    last = err.splitlines()[-1]
    assert f"Checkpoint 5 of the run in {str(damaged)!r} is damaged ({words})" in last
    assert "--step (0)" in last and "--no-verify" in last
    assert state_of(tmp_path) == before


@pytest.mark.slow
def test_the_other_checkpoint_or_no_verification(run_folder, capsys, tmp_path):
    good = call_json(capsys, "eval", run_folder)
    assert good["verified"]
    run = shutil.copytree(run_folder, tmp_path / "run")
    shutil.copytree(run / "checkpoints" / "0", run / "checkpoints" / "5")
    manifest = run / "checkpoints" / "5" / "manifest.json"
    manifest.write_text(json.dumps({"params/of another": [1, "0"]}))
    assert call_json(capsys, "eval", run, "--step", 0) == good
    unlike = good | {"verified": False, "step": 5}
    assert call_json(capsys, "eval", run, "--no-verify") == unlike
    manifest.unlink()
    code, out, err = call(capsys, "eval", run, "--json")
    assert code == 0 and json.loads(out) == unlike
    assert "Checkpoint 5 has no manifest.json" in err


def test_a_checkpoint_with_a_device_is_not_read(run_folder, capsys, tmp_path):
    run = shutil.copytree(run_folder, tmp_path / "run")
    metadata = run / "checkpoints" / "0" / "_CHECKPOINT_METADATA"
    metadata.unlink()
    metadata.symlink_to("/dev/zero")
    for flags in ([], ["--no-verify"]):
        code, _, err = call(capsys, "eval", run, *flags)
        assert code == 1
        assert "_CHECKPOINT_METADATA is not a regular file" in err.splitlines()[-1]


def test_damage_that_the_checksums_were_not_asked_about(run_folder, capsys, tmp_path):
    run = shutil.copytree(run_folder, tmp_path / "run")
    damage(run / "checkpoints" / "0", "missing")
    code, _, err = call(capsys, "eval", run, "--no-verify")
    assert code == 1
    assert "Traceback" not in err
    assert "Checkpoint 0 of the run" in err.splitlines()[-1] and "restore it" in err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["eval", "nowhere"], "There is no run"),
        (["eval", "RUN", "--step", 7], "no checkpoint of step 7"),
        (["eval", "RUN", "--ngram", 10**15], "--ngram: .* is not a whole number from 1 to 20"),
        (["generate", "RUN", "--max-tokens", 500], "more than the model's context of 96"),
        (["generate", "RUN", "--top-p", 0], "--top-p is 0.0"),
        (["generate", "RUN", "--temperature", "nan"], "--temperature is nan"),
        (["generate", "RUN", "--seed", 2**32], "--seed is 4294967296: .* from 0 to 4294967295"),
        (["generate", "RUN", "--beams", 2**60], "--beams is 1152921504606846976, more than"),
        (["generate", "RUN", "--prompt-file", "nowhere"], "cannot be read"),
        (["generate", "RUN", "--prompt", "a", "--prompt", "b", "--beams", 2], "takes one prompt"),
        (["export", "RUN", "--to", "onnx", "out"], "the formats are hf, gguf and word2vec"),
        (["export", "RUN", "--to", "out"], "give the format too: --to hf out"),
        (["export", "RUN", "--to", "hf"], "needs a run and a new folder"),
        (["export", "--to", "hf", "out"], "needs a run and a new folder, but got out"),
        (["export", "--to", "hf", "out", "nowhere"], "There is no run in .*nowhere"),
        (["import", "nowhere", "out"], "There is no folder"),
        (["import", "RUN", "out"], "There is no .*config.json"),
    ],
)
def test_mistakes_are_one_sentence(run_folder, words, sentence, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = call(capsys, *[run_folder if word == "RUN" else word for word in words])
    assert code == 2
    assert out == ""
    assert "Traceback" not in err
    assert re.search(sentence, err.splitlines()[-1])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("verb", "words"),
    [("export", ["RUN", "--to", "hf", "out"]), ("import", ["RUN", "out"])],
)
def test_without_transformers_the_way_out_is_named(
    run_folder, verb, words, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "transformers", None)
    code, _, err = call(capsys, verb, *[run_folder if word == "RUN" else word for word in words])
    assert code == 2
    assert "pip install 'llm-jax[hf]'" in err
    assert "--no-check" in err
