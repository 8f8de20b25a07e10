"""Every verb that reads a run, on a run of every option that changes what a run is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny

from llm_jax.cli import main
from llm_jax.config import DataConfig, EvalConfig, MoeConfig, RunConfig, to_json

TEXT = "def window(start, length):\n    return stream[start : start + length]\n"
MODEL: dict[str, dict[str, Any]] = {
    "experts": {"moe": MoeConfig(experts=4, top_k=2, d_ff=64), "num_layers": 2},
    "windows": {"sliding_window": 7},
    "tied": {"tie_embeddings": True},
}
OPTIM: dict[str, dict[str, Any]] = {
    "ramp": {},
    "bfloat16-state": {
        "param_dtype": "bfloat16",
        "grad_dtype": "bfloat16",
        "moment_dtype": "bfloat16",
        "second_moment_dtype": "bfloat16",
    },
    "schedule-free": {"kind": "schedule_free", "schedule": "constant"},
}
COMPUTE: dict[str, dict[str, Any]] = {"ramp": {"accumulate": 2}}
DATA: dict[str, dict[str, Any]] = {"ramp": {"ramp": "8:2", "batch_size": 16}}
Json = Callable[..., dict[str, Any]]


def config_of(option: str, out: Path, dataset: Path) -> RunConfig:
    model = {"vocab_size": tiny.VOCAB, "num_layers": 1} | MODEL.get(option, {})
    data = {"path": str(dataset), "seq_len": 32, "batch_size": 8} | DATA.get(option, {})
    return tiny.run_config(
        out,
        dataset,
        steps=4,
        model=tiny.model_config(**model),
        optim=tiny.optim_config(**OPTIM.get(option, {})),
        compute=tiny.compute_config(**COMPUTE.get(option, {})),
        data=DataConfig(**data),
        # All windows, so that training says what `eval` says.
        eval=EvalConfig(every=1000, batches=100_000),
    )


@pytest.fixture
def call_json(capsys: pytest.CaptureFixture[str]) -> Json:
    """Calls a verb that succeeds; what it prints on stdout."""

    def call(*argv: object) -> dict[str, Any]:
        with pytest.raises(SystemExit) as stopped:
            main([*map(str, argv), "--json"])
        captured = capsys.readouterr()
        assert stopped.value.code == 0, captured.err
        return json.loads(captured.out)

    return call


@pytest.mark.slow
@pytest.mark.parametrize("option", [*OPTIM, *MODEL])
def test_every_reader_takes_every_kind_of_run(
    option: str, tiny_dataset: Path, tmp_path: Path, call_json: Json
) -> None:
    pytest.importorskip("transformers")
    run, hf, back = tmp_path / "run", tmp_path / "hf", tmp_path / "back"
    file = tmp_path / "config.json"
    file.write_text(to_json(config_of(option, run, tiny_dataset)), encoding="utf-8")
    text = tmp_path / "text.py"
    text.write_text(TEXT * 10, encoding="utf-8")

    trained = call_json("train", file)
    assert trained["step"] == 4
    scored = call_json("eval", run)
    assert scored["loss"] == pytest.approx(trained["loss"], rel=1e-5)
    assert scored["bits_per_byte"] == pytest.approx(trained["bits_per_byte"], rel=1e-5)

    prompt = ["--prompt", "def", "--max-tokens", 4, "--temperature", 0]
    made = call_json("generate", run, *prompt)
    assert 0 < made["tokens"] <= 4
    exported = call_json("export", run, "--to", "hf", hf)
    assert exported["max_logit_difference"] <= 1e-4
    assert call_json("import", hf, back)["max_logit_difference"] <= 1e-4

    # The imported run computes in bfloat16.
    ours, theirs = (call_json("eval", folder, "--text", text)["loss"] for folder in (run, back))
    assert theirs == pytest.approx(ours, rel=1e-2)
    if option == "tied":
        words = ["--data.path", tiny_dataset, "--steps", 3, "--data.seq-len", 32]
        assert call_json("train", back, *words)["step"] == 3
        again = tmp_path / "again"
        call_json("export", back, "--to", "hf", again, "--no-check")
        card = (again / "README.md").read_text(encoding="utf-8")
        assert "| began with | the weights of hf |" in card
        assert "3 steps" in card
