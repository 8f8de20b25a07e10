"""Plans of models that exist: a recipe, a run.json, a Hugging Face folder, a run's weights."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
from asking import Capture, ask, refusal, told

from llm_jax.config import OptimConfig, RunConfig, from_json, load, read_dataset_info, to_json
from llm_jax.laws import lawfile
from llm_jax.runs.history import Text, append, beginning

LLAMA = {
    "model_type": "llama", "vocab_size": 128_256, "hidden_size": 4096, "intermediate_size": 14_336,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
    "hidden_act": "silu", "max_position_embeddings": 8192, "rms_norm_eps": 1e-5,
    "rope_theta": 500_000.0, "tie_word_embeddings": False,
}  # fmt: skip


def test_a_recipe_keeps_what_is_its_own(capsys: Capture, tmp_path: Path) -> None:
    written = tmp_path / "run.json"
    words = ("--config", "llama3_70b", "--tokens", "2T", "--chip", "v5p", "--chips", "2048")
    made = ask(capsys, *words, "--write", str(written))
    own = load("llama3_70b")
    assert made["params"] == 70_553_706_496
    assert made["seq_len"] == own.data.seq_len == 8192
    assert made["batch_tokens"] == own.batch_tokens == 512 * 8192
    assert made["tokens"] == pytest.approx(2e12, rel=1e-5)
    assert made["learning_rate"] == own.optim.learning_rate
    # 6·N·D and attention over the MFU, on 2,048 chips of 459 TFLOP/s.
    seconds = made["flops"] / (made["mfu"] * 2048 * 459e12)
    assert made["hours"] == pytest.approx(seconds / 3600, rel=0.02)
    run = from_json(written.read_text(), RunConfig)
    assert run.model == own.model
    assert run.steps == made["steps"]
    assert run.data.path == own.data.path
    assert dataclasses.replace(run.optim, moment_dtype="float32") == dataclasses.replace(
        own.optim, moment_dtype="float32"
    )
    mesh = run.parallel
    assert mesh.data * mesh.fsdp * mesh.tensor * mesh.context == 2048


def test_a_run_json_without_tokens_takes_its_own_steps(capsys: Capture, tmp_path: Path) -> None:
    config = dataclasses.replace(load("gpt2_124m"), steps=3000)
    (tmp_path / "run.json").write_text(to_json(config))
    made = ask(capsys, "--config", str(tmp_path / "run.json"), "--chip", "8xh100")
    assert made["chips"] == 8
    assert made["tokens"] == pytest.approx(3000 * config.batch_tokens, rel=0.01)
    assert made["given"] == {"name": str(tmp_path / "run.json"), "run": True, "weights": False}
    half = ask(capsys, "--config", "gpt2_124m", "--chip", "8xh100", "--usd", "100")
    assert half["usd"] == pytest.approx(100, rel=0.01)
    assert half["params"] == made["params"]


@pytest.mark.slow
def test_a_recipe_with_an_optimizer_of_its_own_and_longer_sequences(
    capsys: Capture, tmp_path: Path
) -> None:
    optim = OptimConfig(kind="schedule_free", schedule="constant", learning_rate=2e-3)
    config = dataclasses.replace(load("qwen3_0_6b"), optim=optim)
    (tmp_path / "own.json").write_text(to_json(config))
    path, page = tmp_path / "run.json", tmp_path / "plan.html"
    made = ask(
        capsys, "--config", str(tmp_path / "own.json"), "--tokens", "10B", "--chip", "v5e-16",
        "--extend", "8192", "--extend-tokens", "1B", "--write", str(path), "--report", str(page),
        "--source", "a=1T:0.5", "--source", "b=1B:0.5",
    )  # fmt: skip
    first, second = (
        from_json(one.read_text(), RunConfig) for one in (path, tmp_path / "run-extend.json")
    )
    assert first.optim.kind == second.optim.kind == "schedule_free"
    assert first.optim.learning_rate == 2e-3
    assert second.optim.learning_rate == pytest.approx(2e-4)
    assert second.model.max_seq_len == max(8192, config.model.max_seq_len)
    assert made["epochs"] == pytest.approx(5, rel=0.01)
    html = page.read_text(encoding="utf-8")
    for heading in ("Then longer sequences", "Sources", "b (binds)", "Egress", "Storage"):
        assert heading in html


@pytest.mark.parametrize("inside", ["", "config.json"])
def test_a_hugging_face_folder(capsys: Capture, tmp_path: Path, inside: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    made = ask(capsys, "--config", str(tmp_path / inside), "--tokens", "1T", "--chips", "256")
    assert made["params"] == 8_030_261_248  # as published
    assert made["loss"] == pytest.approx(2.07, abs=0.01)
    assert "says nothing of training tokens" in refusal(capsys, "--config", str(tmp_path))


def test_what_is_not_known_is_one_sentence(capsys: Capture, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA | {"model_type": "mamba"}))
    said = refusal(capsys, "--config", str(tmp_path), "--tokens", "1T")
    assert "model_type 'mamba'" in said and said.count("\n") == 1
    both = ("--config", "llama3_8b", "--tokens", "1T")
    assert "--params" in refusal(capsys, *both, "--params", "7B")
    assert "at most 8192" in refusal(capsys, *both, "--seq-len", "16384")
    assert "holds no weights" in refusal(capsys, "--from", "llama3_8b", "--tokens", "1T")


def test_the_loss_of_imported_weights_is_withheld(capsys: Capture, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    words = ("--from", str(tmp_path), "--tokens", "100B", "--chip", "v5e-256")
    made = ask(capsys, *words)
    assert made["loss"] is None and made["loss_interval"] is None
    assert made["candidates"] == [] and made["optimum"]["loss"] is None
    assert any("`llm-jax eval`" in text for text in made["warnings"])
    assert made["hours"] > 0 and made["usd"] == pytest.approx(made["chip_hours"] * 1.2)
    said = told(capsys, *words, "--write", str(tmp_path / "run.json"))
    assert f"llm-jax import {tmp_path} runs/imported" in said


def test_weights_that_read_the_laws_own_text_have_a_loss(
    capsys: Capture, tmp_path: Path, tiny_dataset: Path
) -> None:
    """The loss is that of one run that reads all of the tokens; of another text there is none."""
    fingerprint = read_dataset_info(tiny_dataset)["fingerprint"]
    law = lawfile.read(Path("configs/laws/stdlib.json"))
    assert law.recipe is not None
    recipe = dataclasses.replace(law.recipe, fingerprint=fingerprint)
    lawfile.write(dataclasses.replace(law, recipe=recipe), tmp_path / "law.json")
    run = tmp_path / "run"
    (run / "checkpoints" / "200").mkdir(parents=True)
    config = dataclasses.replace(load("tiny"), out=str(run), steps=200)
    (run / "run.json").write_text(to_json(config))
    append(run, beginning(config, Text(fingerprint, 10**7)).entries[0])
    words = ("--chip", "h100", "--chips", "1", "--unique-tokens", "1B")
    known = ("--law", str(tmp_path / "law.json"), "--data", str(tiny_dataset))
    made = ask(capsys, "--from", str(run), *words, *known, "--tokens", "20M")
    all_tokens = str(20_000_000 + config.tokens(200))
    plain = ask(capsys, "--config", str(run), *words, *known, "--tokens", all_tokens)
    assert made["loss"] == pytest.approx(plain["loss"], rel=1e-4)
    assert made["tokens"] == pytest.approx(2e7, rel=0.01)
    assert ask(capsys, "--from", str(run), *words, "--tokens", "20M")["loss"] is None


def test_a_given_model_is_read_without_jax(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    words = ["plan", "--config", str(tmp_path), "--tokens", "1T", "--json"]
    program = (
        "import sys\n"
        "from llm_jax.cli import main\n"
        f"try: main({words!r})\n"
        "except SystemExit as end: assert not end.code\n"
        "sys.exit(any(name in sys.modules for name in ('jax', 'torch', 'sentencepiece')))"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True).returncode == 0
