"""Options of `generate`: each as the engine has it, and what cannot be is said before loading."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
from foreign import foreign_tokenizer
from task_run import random_run
from verb_calls import call, call_json

from llm_jax.convert.parity import our_logits
from llm_jax.infer.generator import row_seed
from llm_jax.language_model import load_model
from llm_jax.runs.kept import read_samples


@pytest.fixture(scope="module")
def folder(tiny_dataset, tmp_path_factory) -> Path:
    return random_run(tmp_path_factory.mktemp("options") / "run", tiny_dataset)


def words(folder: Path, *more: object) -> list[object]:
    return ["generate", folder, "--prompt", "def", "--max-tokens", 24, *more]


@pytest.mark.slow
def test_samples_are_those_of_their_seeds_and_a_stop_string_spans_tokens(
    folder, capsys, monkeypatch
):
    free = call_json(capsys, *words(folder, "--samples", 3, "--seed", 5))["samples"]
    assert [one["seed"] for one in free] == [row_seed(5, i) for i in range(3)]
    assert len({one["text"] for one in free}) == 3
    alone = call_json(capsys, *words(folder, "--seed", free[2]["seed"]))["samples"]
    assert alone[0]["ids"] == free[2]["ids"]
    # The end of one token and the beginning of the next.
    tokenizer = load_model(folder).tokenizer
    spelled = [tokenizer.bytes_of(i) for i in free[0]["ids"]]
    plain = [one != b"" and one.isascii() for one in spelled]
    place = next(i for i in range(4, 20) if plain[i] and plain[i + 1])
    one, two = spelled[place].decode(), spelled[place + 1].decode()
    stop = one[-1] + two[0]
    cut = call_json(capsys, *words(folder, "--samples", 3, "--seed", 5, "--stop", stop, "--keep"))
    for short, long in zip(cut["samples"], free, strict=True):
        assert short["text"] == long["text"].split(stop)[0]
        assert (short["stopped_by"] == stop) == (stop in long["text"]) == short["stopped"]
        assert short["ids"] == long["ids"][: len(short["ids"])]
    assert len(cut["samples"][0]["ids"]) <= place + 2
    kept = read_samples(folder)
    assert kept and kept["how"] == f"temperature 0.8, seed 5, stop {stop!r}, samples 3"
    assert [one["seed"] for one in kept["samples"]] == [one["seed"] for one in free]
    pieces = []
    made = load_model(folder).generate(
        "def", max_tokens=24, temperature=0.8, seed=5, stop=[stop], on_text=pieces.append
    )
    assert made == cut["text"] == "".join(pieces)
    # A terminal sees the text while it is made.
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    _, said, _ = call(capsys, *words(folder, "--seed", 5, "--stop", stop))
    assert said.startswith(f"def{made}\n")


@pytest.mark.slow
def test_penalties_biases_and_log_probs_are_those_of_the_logits(folder, capsys):
    model = load_model(folder)
    shaped = ["--repetition-penalty", 1.5, "--frequency-penalty", 0.7, "--presence-penalty", 0.4]
    greedy = words(folder, "--temperature", 0, "--log-probs", 3, *shaped)
    ((sample),) = call_json(capsys, *greedy)["samples"]
    prompt, ids = model.tokens("def"), sample["ids"]
    forbidden = ids[1]
    logits = our_logits(model.params, model.config, np.array([prompt + ids], np.int32))[0]
    logits = logits[len(prompt) - 1 : -1, : model.tokenizer.vocab_size].astype(np.float64)
    for i, row in enumerate(logits):
        wanted = row.copy()
        seen = list({*prompt, *ids[:i]})
        wanted[seen] = np.where(row[seen] > 0, row[seen] / 1.5, row[seen] * 1.5)
        for token in set(ids[:i]):
            wanted[token] -= 0.4 + 0.7 * ids[:i].count(token)
        assert ids[i] == wanted.argmax()
        log_p = row - np.log(np.exp(row - row.max()).sum()) - row.max()
        kept = sample["log_probs"][i]
        assert kept["log_prob"] == pytest.approx(log_p[ids[i]], abs=1e-4)
        assert [one["id"] for one in kept["top"]] == np.argsort(-log_p)[:3].tolist()
    made = call_json(capsys, *greedy, "--logit-bias", f"{forbidden}=-100", "--keep")["samples"][0]
    assert made["ids"][0] == ids[0] and forbidden not in made["ids"]
    kept = read_samples(folder)
    assert kept and kept["how"].startswith("greedy, repetition-penalty 1.5, presence-penalty 0.4")
    assert len(kept["samples"][0]["log_probs"]) == len(made["ids"])


@pytest.mark.slow
def test_texts_of_a_form(folder, tmp_path, capsys):
    pytest.importorskip("llguidance")
    (tmp_path / "schema.json").write_text('{"enum": ["cat", 12]}')
    (tmp_path / "sums.lark").write_text('start: "1" ("+1")~2')
    made = call_json(capsys, *words(folder, "--samples", 4, "--schema", tmp_path / "schema.json"))
    assert all(json.loads(one["text"]) in ("cat", 12) for one in made["samples"])
    assert all(one["complete"] for one in made["samples"])
    made = call_json(capsys, *words(folder, "--grammar", tmp_path / "sums.lark"))
    assert made["text"] == "1+1+1"
    _, said, _ = call(capsys, *words(folder, "--regex", "[a-f]{90}"))
    assert re.match("def[a-f]+\n", said) and "1 of 1 ended before the form" in said
    made = load_model(folder).generate("def", max_tokens=20, regex="[0-9]{3}")
    assert re.fullmatch("[0-9]{3}", made)
    (tmp_path / "never.json").write_text('{"enum": []}')
    code, _, err = call(capsys, *words(folder, "--schema", tmp_path / "never.json"))
    assert code == 2 and "The JSON schema cannot be used" in err


@pytest.mark.slow
@pytest.mark.parametrize("draft", ["run", "hf", None])
def test_drafts_change_no_greedy_text(draft, folder, tmp_path, capsys):
    greedy = words(folder, "--prompt", "import", "--temperature", 0)
    plain = call_json(capsys, *greedy)
    flags = ["--speculate", 3]
    if draft == "hf":
        call_json(capsys, "export", folder, "--to", "hf", tmp_path / "hf", "--no-check")
    if draft:
        flags += ["--draft", folder if draft == "run" else tmp_path / "hf"]
    made = call_json(capsys, *greedy, *flags)
    assert [one["ids"] for one in made["samples"]] == [one["ids"] for one in plain["samples"]]
    counts = made["speculation"]
    if draft:  # of itself: each is accepted
        assert counts["accepted"] == counts["drafted"] > 0 and counts["rate"] == 1
    else:  # a text of chance repeats little
        assert 0 <= counts["accepted"] <= counts["drafted"]
    assert "speculation" not in plain


@pytest.mark.slow
def test_the_commands_of_the_guide_run(folder, tmp_path, capsys, monkeypatch):
    pytest.importorskip("llguidance")
    page = (Path(__file__).resolve().parents[2] / "docs" / "export.md").read_text("utf-8")
    section = page.split("### Shape what is made")[1].split("\n## ")[0]
    (block,) = re.findall(r"^```bash\n(.*?)^```$", section, re.M | re.S)
    lines = [shlex.split(line)[1:] for line in block.splitlines()]
    assert len(lines) == 6
    monkeypatch.chdir(tmp_path)
    Path("answer.json").write_text('{"type": "boolean"}')
    for line in lines:
        given = [str(folder) if word == "runs/first" else word for word in line]
        made = call_json(capsys, *[word for word in given if word != "--json"], "--max-tokens", 8)
        assert made["tokens"] > 0
        if "--regex" in line:
            assert re.fullmatch(line[-1], made["text"])
        if "--schema" in line:
            assert made["text"] in ("true", "false")


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--beams", 2, "--stop", "a", "--top-k", 3], "leave out --top-k and --stop"),
        (["--beams", 2, "--log-probs"], "leave out --log-probs"),
        (["--samples", 2, "--temperature", 0], "all of them would be the same"),
        (["--stop", ""], "--stop is empty"),
        (["--repetition-penalty", -1], "--repetition-penalty is -1"),
        (["--presence-penalty", "nan"], "--presence-penalty is nan"),
        (["--frequency-penalty", 2.5], "--frequency-penalty is 2.5"),
        (["--logit-bias", "7"], "'7' is not ID=VALUE"),
        (["--logit-bias", "7=101"], "token 7 the bias 101"),
        (["--logit-bias", "999999=1"], f"names token 999999: give ids from 0 to {tiny.VOCAB - 1}"),
        (["--log-probs", 21], "'21' is not a whole number from 0 to 20"),
        (["--regex", "a", "--grammar", "x"], "not allowed with"),
        (["--schema", "nowhere"], "--schema nowhere cannot be read"),
        (["--speculate", 2, "--presence-penalty", 1], "leave that out, or --speculate"),
        (["--draft", "nowhere"], "There is no model in"),
        (["--draft", "OTHER"], f"is not the model's ({tiny.VOCAB})"),
        (["--draft", "SHORT", "--max-tokens", 80], "context of the draft, which is 64"),
    ],
)
def test_what_cannot_be_is_said_before_a_model_is_loaded(
    flags, sentence, folder, tiny_dataset, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("llm_jax.language_model.load_described", None)
    if "SHORT" in flags:
        random_run(tmp_path / "short", tiny_dataset, max_seq_len=64)
    if "OTHER" in flags:
        shutil.copytree(folder, tmp_path / "other")
        (tmp_path / "other" / "tokenizer.model").write_bytes(foreign_tokenizer().content)
    given = [tmp_path / str(flag).lower() if flag in ("SHORT", "OTHER") else flag for flag in flags]
    code, out, err = call(capsys, *words(folder, *given))
    assert (code, out) == (2, "")
    assert sentence in err.splitlines()[-1]
