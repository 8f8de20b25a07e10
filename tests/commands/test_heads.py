"""The section of the guide on heads: its commands, on a small encoder in the place of its run."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny
from verb_calls import call, call_json

from llm_jax.config import EncoderConfig, RunConfig, read_config
from llm_jax.convert.hf_import import write_run
from llm_jax.convert.others import other_of
from llm_jax.data.dataset import TokenDataset
from llm_jax.infer.labels import predict

PAGE = Path(__file__).resolve().parents[2] / "docs" / "encoders.md"
BERT = EncoderConfig(
    vocab_size=tiny.VOCAB, num_layers=1, d_model=32, num_heads=2, d_ff=48, max_seq_len=64
)
FILE = re.compile(r"^cat > \S+ <<'END'\n.*?^END\n", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def guide(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any]]:
    """A folder with the encoder and the guide's files, and the words of its commands."""
    folder = tmp_path_factory.mktemp("guide")
    (folder / "runs" / "bert_tiny").mkdir(parents=True)
    run = tiny.run_config("runs/bert_tiny", objective="masked", model=BERT)
    tokenizer = TokenDataset.open(tiny_dataset).tokenizer
    write_run(folder / "runs" / "bert_tiny", run, tiny.parameters(BERT, size=0.1), tokenizer)
    section = PAGE.read_text("utf-8").split("## Heads")[1].split("\n## ")[0]
    commands = []
    for block in re.findall(r"^```bash\n(.*?)^```$", section, re.MULTILINE | re.DOTALL):
        for file in FILE.findall(block):
            subprocess.run(["bash", "-c", file], cwd=folder, check=True)
        commands += [shlex.split(line)[1:] for line in FILE.sub("", block).splitlines()]
    return folder, commands


@pytest.mark.slow
def test_the_guide(
    guide: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, commands = guide
    monkeypatch.chdir(folder)
    made: dict[str, list[Any]] = {}
    for words in commands:
        verb = " ".join(words[:2]) if words[0] == "data" else words[0]
        words = ["2" if words[i - 1] == "--steps" else word for i, word in enumerate(words)]
        made.setdefault(verb, []).append(call_json(capsys, *words))
    kinds = [one["examples"]["kind"] for one in made["data label"]]
    assert kinds == ["classify", "tag", "answer", "embed"]
    assert made["data label"][1]["examples"]["labels"] == ["B-LOC", "B-PER", "O"]
    assert [set(one["figures"]) for one in made["train"]] == [{"accuracy", "macro_f1"}, set()]
    held_out, whole = (next(iter(one["labelled"].values())) for one in made["eval"])
    assert held_out["accuracy"] == made["train"][0]["figures"]["accuracy"]
    assert held_out["loss"] == pytest.approx(made["train"][0]["loss"], abs=1e-5)
    assert whole["examples"] == 6
    run, exported = made["predict"]
    first = run["predictions"][0]["probabilities"]
    assert sum(first.values()) == pytest.approx(1.0)
    assert exported["predictions"][0]["probabilities"] == pytest.approx(first, abs=1e-6)
    assert set(first) == {"good", "bad"}
    config = read_config(folder / "runs" / "reviews" / "run.json", RunConfig)
    assert isinstance(config.model, EncoderConfig)
    assert (config.objective, config.model.labels) == ("classify", ("bad", "good"))
    assert made["export"][0]["architecture"] == "BertForSequenceClassification"
    assert made["export"][0]["max_logit_difference"] < 1e-4
    assert made["embed"][0]["of"] == "hidden"
    assert np.shape(made["embed"][0]["cosines"]) == (2, 2)
    code, _, err = call(capsys, "report", "runs/reviews")
    assert code == 2
    assert "learns from labelled examples" in err


@pytest.mark.slow
def test_answers_that_are_known_by_heart(
    guide: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = guide
    monkeypatch.chdir(folder)
    call_json(
        capsys, "data", "label", "--input", "answers.jsonl", "--validation", "answers.jsonl",
        "--tokenizer", "runs/bert_tiny", "--out", "data/answers-whole",
    )  # fmt: skip
    trained = call_json(
        capsys, "train", "--init", "runs/bert_tiny", "--data.path", "data/answers-whole", "--out",
        "runs/answers", "--steps", 80, "--data.batch-size", 8, "--optim.learning-rate", 1e-2,
        "--optim.warmup-steps", 5, "--log-every", 40, "--eval.every", 80,
    )  # fmt: skip
    assert trained["figures"] == {"exact_match": 1.0, "f1": 1.0}
    found = call_json(capsys, "predict", "runs/answers", "--input", "answers.jsonl")["predictions"]
    rows = [json.loads(line) for line in Path("answers.jsonl").read_text("utf-8").splitlines()]
    for name, key in (("answer", "text"), ("start", "answer_start")):
        assert [one[name] for one in found] == [row["answers"][key][0] for row in rows]
    asked = ("--question", "Who lost?")
    said = call_json(capsys, "predict", "runs/answers", "Ann beat Bob.", *asked)
    assert said["predictions"][0]["answer"] == "Bob"


def test_tags_are_those_of_the_first_tokens(tiny_dataset: Path) -> None:
    """Of random weights, beside the logits at the places where the words begin."""
    tokenizer = TokenDataset.open(tiny_dataset).tokenizer
    labels = ("B-LOC", "B-PER", "O")
    model = dataclasses.replace(BERT, head="tag", labels=labels)
    held = SimpleNamespace(config=model, params=tiny.parameters(model), tokenizer=tokenizer)
    words = ["Ann", "met", "Bob", "in", "京都", "です"]
    made = predict(held, {"words": words})
    ids = [tokenizer.bos_id, *tokenizer.encode("Ann met Bob in 京都です"), tokenizer.eos_id]
    other = other_of(model)
    assert other is not None
    logits = other.ours(held.params, model, np.array([ids], np.int32))[0]
    text = [tokenizer.decode(ids[1:n]) for n in range(1, len(ids))]
    before = ["", "Ann", "Ann met", "Ann met Bob", "Ann met Bob in ", "Ann met Bob in 京都"]
    places = [1 + len(text) - 1 - text[::-1].index(start) for start in before]
    assert made["tags"] == [labels[i] for i in logits[places].argmax(-1)]
    assert made["words"] == words
    assert min(made["probabilities"]) > 1 / 3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("predict", "runs/bert_tiny", "a"), "has no head that gives labels"),
        (("predict", "runs/bert_tiny"), "needs texts"),
        (("data", "label", "--input", "none.jsonl", "--tokenizer", "runs/bert_tiny", "--out", "x"),
         "There is no file 'none.jsonl'"),
        (("data", "label", "--input", "pairs.csv", "--tokenizer", "runs/bert_tiny", "--out", "x",
          "--length", "3"), "--length is 3"),
        (("data", "label", "--input", "pairs.csv", "--tokenizer", "runs/bert_tiny", "--out",
          "runs"), "is not a dataset"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_says_so(
    words: Any, said: str, guide: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(guide[0])
    code, _, err = call(capsys, *words)
    assert code == 2
    assert said in err
