"""`plan --write`, `train` and `report` on a real tiny run; a ladder that is stopped and goes on."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any

import pytest
from verb_calls import call

from llm_jax.cli import main
from llm_jax.config import RunConfig, from_json, to_json
from llm_jax.laws import lawfile
from llm_jax.laws.law import Fitted, Parametric, Recipe
from llm_jax.laws.run_curves import validation_losses
from llm_jax.plan import dataset_text
from llm_jax.runs.plan_file import PLAN, read_plan


def law_file(path: Path, fingerprint: str) -> Path:
    """A law of models of 20,000 parameters on 512 pieces."""
    law = Parametric(
        name="tiny",
        source="test",
        counts="all",
        fitted=Fitted((1e9, 1e11), (1e4, 1e5), (1e4, 1e6)),
        E=2.0,
        A=100.0,
        B=300.0,
        alpha=0.4,
        beta=0.5,
        recipe=Recipe(
            rule="small",
            family="llama",
            seq_len=64,
            vocab_size=512,
            text="four packages",
            fingerprint=fingerprint,
        ),
    )
    lawfile.write(law, path)
    return path


@pytest.fixture(scope="module")
def planned_run(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of some steps that was planned with a law of its own text, and trained."""
    folder = tmp_path_factory.mktemp("planned")
    law = law_file(folder / "law.json", dataset_text.read(tiny_dataset).fingerprint)
    argv = ["plan", "--flops", "1.7e10", "--chip", "a100", "--chips", "1", "--tokens", "60000"]
    argv += ["--law", str(law), "--data", str(tiny_dataset), "--name", "tiny"]
    argv += ["--out", str(folder / "run"), "--write", str(folder / "run.json")]
    for words in (argv, ["train", str(folder / "run.json"), "--parallel.data", "8"]):
        with pytest.raises(SystemExit) as stopped:
            main(words)
        assert stopped.value.code == 0
    return folder / "run"


@pytest.mark.slow
def test_the_law_file_brings_its_recipe_and_the_dataset_its_vocabulary(planned_run: Path) -> None:
    config = from_json((planned_run / "run.json").read_text(), RunConfig)
    assert config.model.vocab_size == 512
    assert config.data.seq_len == 64
    assert config.batch_tokens == 1024
    assert config.optim.final_fraction == 0.02
    plan = read_plan(planned_run)
    assert plan is not None and plan.law is not None
    assert plan.law.startswith("tiny")
    assert plan.law_text is None


@pytest.mark.slow
def test_report_sets_prediction_beside_measurement(planned_run: Path, capsys, tmp_path) -> None:
    code, out, _ = call(capsys, "report", planned_run, "--out", tmp_path / "r", "--json")
    assert code == 0
    found = json.loads(out)
    config = from_json((planned_run / "run.json").read_text(), RunConfig)
    lines = [json.loads(line) for line in (planned_run / "metrics.jsonl").read_text().splitlines()]
    validation = [line for line in lines if line["split"] == "validation"]
    plan = read_plan(planned_run)
    assert plan is not None and plan.loss is not None
    assert found["measured_loss"] == validation[-1]["loss"]
    assert found["predicted_loss"] == plan.loss
    assert found["loss_error"] == pytest.approx(plan.loss / validation[-1]["loss"] - 1)
    assert found["verdict"]["loss"] in ("within", "below", "above")
    assert found["step"] == found["steps"] == config.steps
    train = [line for line in lines if line["split"] == "train"]
    slowest, fastest = (
        config.steps * config.batch_tokens / pick(line["tokens_per_second"] for line in train)
        for pick in (min, max)
    )
    assert fastest <= found["measured_seconds"] <= slowest
    assert found["devices"] == "8 × cpu"
    assert found["predicted_step_seconds"] is None and found["verdict"]["step_seconds"] is None
    assert [w for w in found["warnings"] if "planned for 1x a100 and ran on 8 × cpu" in w]
    assert len(found["warnings"]) == 1
    html = Path(found["html"]).read_text()
    assert html.count("<svg") >= 4
    assert f"{found['measured_loss']:.4f}" in html
    assert not re.search(r"""(src|href)=["']https?:""", html)
    assert Path(found["png"]).read_bytes()[:4] == b"\x89PNG"
    code, out, _ = call(capsys, "report", planned_run, "--out", tmp_path / "r")
    assert code == 0
    assert f"{found['measured_loss']:.4f}" in out


@pytest.mark.slow
def test_what_eval_and_generate_keep_is_in_the_report(planned_run, capsys, tmp_path) -> None:
    code, out, err = call(capsys, "eval", planned_run, "--ngram", 2, "--keep", "--json")
    assert code == 0, err
    scores = json.loads(out)
    assert Path(scores["kept"]) == planned_run / "evaluations.json"
    words = ["--prompt", "import <os>", "--max-tokens", 8, "--temperature", 0, "--keep"]
    code, out, err = call(capsys, "generate", planned_run, *words, "--json")
    assert code == 0, err
    sample = json.loads(out)["samples"][0]
    code, out, _ = call(capsys, "report", planned_run, "--out", tmp_path, "--json")
    assert code == 0
    html = Path(json.loads(out)["html"]).read_text()
    assert f"<b>import &lt;os&gt;</b>{escape(sample['text'])}</pre>" in html
    assert f"Step {scores['step']:,}, greedy." in html
    for one in (scores, scores["ngram"]["whole train split"]):
        assert f'<td class="n">{one["bits_per_byte"]:.4f}</td>' in html
    # The newest result for a text takes the place of the one before.
    text = tmp_path / "text.txt"
    text.write_text("import os\n")
    for words in (["--text", text], []):
        assert call(capsys, "eval", planned_run, *words, "--keep")[0] == 0
    kept = json.loads((planned_run / "evaluations.json").read_text())
    assert set(kept) == {"validation split", str(text)}
    assert "ngram" not in kept["validation split"]


@pytest.mark.slow
def test_report_of_a_run_that_was_changed_or_not_planned(planned_run, capsys, tmp_path) -> None:
    config = from_json((planned_run / "run.json").read_text(), RunConfig)
    for changed, files, sentence in (
        (replace(config, steps=config.steps + 1), [PLAN], "was changed after it was planned"),
        (config, [], "was not planned"),
    ):
        folder = tmp_path / sentence[:7]
        folder.mkdir()
        (folder / "run.json").write_text(to_json(changed))
        for name in ("metrics.jsonl", *files):
            (folder / name).write_bytes((planned_run / name).read_bytes())
        code, out, _ = call(capsys, "report", folder, "--json")
        assert code == 0
        found = json.loads(out)
        assert found["predicted_loss"] is None
        assert found["predicted_seconds"] is None
        assert sentence in found["warnings"][0]


@pytest.mark.slow
def test_a_law_of_other_text_is_said(tiny_dataset, tmp_path, capsys) -> None:
    law = law_file(tmp_path / "law.json", "another")
    code, out, _ = call(
        capsys, "plan", "--flops", "1.7e10", "--chip", "a100", "--chips", 1, "--tokens", 60000,
        "--law", law, "--data", tiny_dataset, "--write", tmp_path / "run.json", "--json",
    )  # fmt: skip
    assert code == 0
    assert any("another dataset (four packages)" in w for w in json.loads(out)["warnings"])
    plan = read_plan(tmp_path / "run.json")
    assert plan is not None
    assert plan.law_text == "four packages"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["report", "nowhere"], "There is no run in 'nowhere'"),
        (["ladder", "--data", "nowhere", "--flops", "1e13"], "There is no dataset in 'nowhere'"),
        (["ladder", "--data", "{data}"], "give --flops or --minutes"),
        (["ladder", "--data", "{data}", "--flops", "1e9", "--minutes", "3"], "one budget"),
        (["ladder", "--data", "{data}", "--flops", "1e6"], "too little to learn from"),
        (["ladder", "--data", "{data}", "--flops", "1e16"], "or more text"),
        (["ladder", "--data", "{data}", "--flops", "1e11", "--rule", "smal"], "did you mean"),
        (["ladder", "--data", "{data}", "--flops", "1e11", "--chip", "v5x"], "'v5e' or 'v5p'"),
        (["ladder", "--data", "{data}", "--flops", "1e11", "--name", "kaplan"], "published law"),
        (["ladder", "--data", "{data}", "--flops", "1e11", "--out", "{data}"], "not empty"),
        (["ladder", "--data", "{data}", "--flops", "1e11", "--anchor", "sardana"], "give a law"),
        (["ladder", "--data", "{data}", "--flops", "1e11", "--anchor", "no.json"], "no law file"),
        (
            ["ladder", "--data", "{data}", "--flops", "1e11", "--anchor", "kaplan", "--step", "2"],
            "--step is for a full ladder",
        ),
    ],
)
def test_bad_input_is_one_sentence(tiny_dataset, tmp_path, monkeypatch, capsys, argv, sentence):
    monkeypatch.chdir(tmp_path)
    words = [word.format(data=tiny_dataset) for word in argv]
    if "--chip" not in words and words[0] == "ladder":
        words += ["--chip", "a100"]
    code, out, err = call(capsys, *words)
    assert code == 2
    assert sentence in err
    assert out == ""
    assert err.count("\n") == 1


@pytest.mark.slow
def test_a_ladder_says_what_its_text_lacks(tiny_dataset, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    info = json.loads((tiny_dataset / "dataset.json").read_text(encoding="utf-8"))
    assert info["lost"]["count"] == 0
    info["lost"]["count"] = 12
    Path("lossy").mkdir()
    Path("lossy/dataset.json").write_text(json.dumps(info))
    words = ["ladder", "--flops", "1e6", "--chip", "a100", "--data"]
    for data, lines in ((tiny_dataset, 1), ("lossy", 2)):
        code, _, err = call(capsys, *words, data)
        assert (code, err.count("\n")) == (2, lines)
    assert "12 documents could not be used when lossy was built" in err


@pytest.mark.slow
def test_an_anchor_moves_a_law_to_the_text_and_its_plan_says_so(
    tiny_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    law, out = law_file(tmp_path / "law.json", "another"), tmp_path / "anchor"
    words = ["ladder", "--anchor", law, "--data", tiny_dataset, "--chip", "a100", "--out", out]
    code, said, err = call(capsys, *words, "--flops", "1e10", "--json")
    assert code == 0, err
    found = json.loads(said)
    run = found["anchor"]
    losses = validation_losses(out / run["name"] / "metrics.jsonl")
    assert losses[-1] == (run["tokens"], run["loss"])
    assert found["E"] == pytest.approx(2.0 + run["loss"] - run["before"])
    assert (found["A"], found["B"], found["alpha"], found["beta"]) == (100.0, 300.0, 0.4, 0.5)
    assert found["law"] == str(out / "law.json")

    code, _, err = call(capsys, *words, "--flops", "1e10")
    assert (code, err.count("already done")) == (0, 1)
    code, _, err = call(capsys, *words, "--flops", "2e10")
    assert code == 2
    assert "flops 10000000000.0 → 20000000000.0" in err

    code, said, _ = call(
        capsys, "plan", "--flops", "1.7e10", "--chip", "a100", "--chips", 1, "--tokens", 60000,
        "--law", out / "law.json", "--data", tiny_dataset, "--json",
    )  # fmt: skip
    assert code == 0
    planned = json.loads(said)
    assert not any("another dataset" in warning for warning in planned["warnings"])
    assert planned["loss"] == pytest.approx(
        found["E"] + 100 / planned["params"] ** 0.4 + 300 / planned["tokens"] ** 0.5
    )


@pytest.mark.slow
def test_a_stopped_ladder_keeps_its_finished_runs(tiny_dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "ladder"
    command: list[Any] = [sys.executable, "-m", "llm_jax", "ladder", "--data", tiny_dataset]
    command += ["--flops", "4e11", "--chip", "a100", "--seq-len", "64", "--out", out, "--json"]
    command += ["--bootstraps", "50"]
    child = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 600
    while len(done := list(out.glob("*/loss.png"))) < 2:
        assert child.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    os.killpg(child.pid, signal.SIGINT)  # as Ctrl-C does
    assert child.wait(120) == 130
    before = {path: path.stat().st_mtime_ns for path in done}
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    # So little text and training may determine no law: then that is said, in one sentence.
    determined = again.returncode == 0
    assert determined or again.returncode == 2
    assert determined or again.stderr.splitlines()[-1].startswith(
        "error: The fit has not converged"
    )
    assert {path: path.stat().st_mtime_ns for path in done} == before
    assert again.stderr.count("already done") >= 2
    runs = sorted(out.glob("*/metrics.jsonl"))
    assert len(runs) == 9
    last = {path.parent.name: validation_losses(path)[-1][1] for path in runs}
    assert all(1 < loss < 7 for loss in last.values())
    assert not determined or len(json.loads(again.stdout)["runs"]) == 9
    other = subprocess.run(
        [*command, "--family", "llama"], capture_output=True, text=True, check=False
    )
    assert other.returncode == 2
    assert "family 'qwen' → 'llama'" in other.stderr


@pytest.mark.slow
def test_a_report_does_not_take_the_predictions_place(tmp_path: Path, capsys) -> None:
    words = ["plan", "--flops", "1e19", "--write", tmp_path / "run.json"]
    code, _, err = call(capsys, *words, "--report", tmp_path / "plan.json")
    assert code == 2
    assert "--report is" in err and "--write writes" in err
    assert list(tmp_path.iterdir()) == []
