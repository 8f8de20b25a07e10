"""`tokenizer …` and `data …` through the command line: JSON on stdout, one sentence on mistakes."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from foreign import FOREIGN, foreign_tokenizer
from verb_calls import call, call_json

TEXTS = [
    "The tokenizer learns pairs of pieces that occur often next to each other.\n",
    "データセットは、文書を混ぜて並べた一つの長い列である。\n",
    "def window(start, length):\n    return stream[start : start + length]\n",
    "A record holds two thousand and forty-eight tokens, the last one fewer.\n",
]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    folder.mkdir()
    for i, text in enumerate(TEXTS):
        (folder / f"{i}.txt").write_text(text * 20, encoding="utf-8")
    (folder / "bad.txt").write_bytes(b"\xff\xff")
    return folder


def test_from_files_to_batches_of_tokens(
    tmp_path: Path, corpus: Path, capsys: pytest.CaptureFixture[str], monkeypatch
) -> None:
    model, out = tmp_path / "t.model", tmp_path / "set"
    made = call_json(
        capsys, "tokenizer", "train", "--input", corpus, "--vocab-size", 420, "--out", model
    )
    assert made["vocab_size"] == 420
    assert made["bytes_per_token"] > 2
    assert made["documents"] == {"in": 5, "out": 4}
    assert made["dropped"] == {"not utf-8": 1}

    encoded = call_json(capsys, "tokenizer", "encode", "--tokenizer", model, "The 列 of 2048")
    assert encoded["vocab_size"] == 420
    assert encoded["bytes_per_token"] == pytest.approx(15 / len(encoded["ids"]))
    decoded = call_json(capsys, "tokenizer", "decode", "--tokenizer", model, *encoded["ids"])
    assert decoded["text"] == "The 列 of 2048"
    assert decoded["bytes_per_token"] == encoded["bytes_per_token"]

    ids = " ".join(map(str, encoded["ids"]))
    monkeypatch.setattr("sys.stdin", io.StringIO(ids))
    assert call(capsys, "tokenizer", "decode", "--tokenizer", model)[:2] == (0, "The 列 of 2048\n")
    stdin = io.TextIOWrapper(io.BytesIO("The 列 of 2048".encode()))
    monkeypatch.setattr("sys.stdin", stdin)
    assert call(capsys, "tokenizer", "encode", "--tokenizer", model)[:2] == (0, ids + "\n")

    build = ("data", "build", "--input", corpus, "--tokenizer", model, "--out", out)
    info = call_json(capsys, *build, "--licence", "CC0-1.0")
    assert info["documents"] == {"in": 5, "out": 4}
    assert info["dropped"] == {"not utf-8": 1}
    assert info["licences"] == {"CC0-1.0": 4}
    assert info["bytes"] == sum(len(text.encode()) * 20 for text in TEXTS)
    assert info["tokens"] == sum(split["tokens"] for split in info["splits"].values())
    assert info["tokenizer_sha256"] == made["sha256"]
    assert not info["built_before"]
    assert call_json(capsys, *build, "--licence", "CC0-1.0")["built_before"]
    assert "already built" in call(capsys, *build, "--licence", "CC0-1.0")[1]
    code, _, err = call(capsys, *build, "--seed", 1)
    assert (code, err.count("\n")) == (2, 1)
    assert "--overwrite" in err

    seen = call_json(capsys, "data", "inspect", out, "--samples", 2)
    assert seen["tokens"] == info["tokens"]
    assert seen["licences"] == info["licences"]
    assert [sample["split"] for sample in seen["samples"]] == ["train", "train"]
    assert all(any(s["text"].startswith(t[:20]) for t in TEXTS) for s in seen["samples"])
    assert "dropped: not utf-8 1" in call(capsys, "data", "inspect", out)[1]


def test_records_that_are_a_pipe_are_not_waited_for(
    tiny_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = Path(shutil.copytree(tiny_dataset, tmp_path / "dataset"))
    (records,) = (copy / "tokens" / "1.0.0").glob("*-validation.array_record-*")
    records.unlink()
    os.mkfifo(records)
    code, out, err = call(capsys, "data", "inspect", copy, "--split", "validation")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert records.name in err and "not a regular file" in err


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["data", "build", "--out", "o", "--vocab-size", "400"], "give --input PATH"),
        (["data", "build", "--out", "o", "--stdlib"], "--tokenizer --vocab-size is required"),
        (["data", "build", "--out", "o", "--vocab-size", "0"], "'0' is not a whole number above"),
        (
            ["data", "build", "--out", "o", "--vocab-size", "9K", "--input", "absent"],
            "--input 'absent' does not exist",
        ),
        (["data", "build", "--out", "o", "--stdlib", "--tokenizer", ""], "no tokenizer in '.'"),
        (
            ["data", "build", "--out", "o", "--vocab-size", "4294967296", "--stdlib"],
            "'4294967296' is not a whole number from 1 to 2,147,483,647",
        ),
        (["data", "inspect", "absent"], "There is no dataset in 'absent'"),
        (["data", "inspect", "absent", "--sample", "3"], "did you mean '--samples'?"),
        (["tokenizer", "encode", "--tokenizer", "absent", "x"], "no tokenizer file 'absent'"),
    ],
)
def test_mistakes_are_one_sentence_and_exit_2(
    tmp_path: Path,
    argv: list[str],
    words: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = call(capsys, *argv)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert words in err
    assert list(tmp_path.iterdir()) == []


def test_a_tokenizer_is_not_overwritten(
    tmp_path: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "t.model"
    model.write_bytes(b"precious")
    train = ("tokenizer", "train", "--input", corpus, "--vocab-size", 420, "--out", model)
    assert call(capsys, *train)[0] == 2
    assert model.read_bytes() == b"precious"
    assert call(capsys, *train, "--overwrite")[0] == 0
    assert len(model.read_bytes()) > 1000
    folder = tmp_path / "folder"
    train = (*train[:-1], folder, "--overwrite")
    assert call(capsys, *train)[0] == call(capsys, *train)[0] == 0
    (folder / "thesis.txt").write_text("precious")
    code, _, err = call(capsys, *train)
    assert code == 2 and "holds 'thesis.txt', which is not part of a tokenizer" in err
    assert (folder / "thesis.txt").read_text() == "precious"
    code, _, err = call(capsys, *train[:-2], folder / "thesis.txt", "--overwrite")
    assert code == 2 and "is a file" in err


def test_words_that_are_no_ids(
    tmp_path: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "t.model"
    call(capsys, "tokenizer", "train", "--input", corpus, "--vocab-size", 420, "--out", model)
    for ids, words in ((["12", "x"], "whole numbers"), (["420"], "vocabulary of 420")):
        code, _, err = call(capsys, "tokenizer", "decode", "--tokenizer", model, *ids)
        assert (code, err.count("\n")) == (2, 1)
        assert words in err


def test_a_tokenizer_that_cannot_be_exported_is_refused_or_what_it_loses_is_shown(
    tmp_path: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, out = tmp_path / "newlines.model", tmp_path / "set"
    model.write_bytes(foreign_tokenizer(**FOREIGN["newlines-in-pieces"]).content)
    words = ["data", "build", "--input", corpus, "--tokenizer", model, "--out", out]
    code, _, err = call(capsys, *words)
    assert (code, err.count("\n")) == (2, 1)
    assert "splits differently" in err and "--not-exportable" in err
    assert not out.exists()
    code, said, _ = call(capsys, *words, "--not-exportable")
    assert code == 0
    model.write_bytes(foreign_tokenizer(**FOREIGN["nfkc"]).content)
    code, said, _ = call(capsys, *words, "--overwrite")
    assert code == 0
    assert "loses text: 4 of the 4 documents" in said
    assert r"lost: '\n' " in said


@pytest.mark.slow
def test_a_process_prints_json_alone_on_stdout(tmp_path: Path, corpus: Path) -> None:
    words = ["data", "build", "--input", corpus, "--vocab-size", "420", "--out", tmp_path / "set"]
    command = [sys.executable, "-m", "llm_jax", *map(str, words), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["vocab_size"] == 420
    assert done.stderr.splitlines() == [
        "reading documents",
        "training the tokenizer",
        "tokenising shards",
        "writing records",
    ]


@pytest.mark.parametrize("verb", [["data", "build"], ["tokenizer", "train"]])
def test_help_imports_no_numpy(verb: list[str]) -> None:
    code = (
        "import sys, llm_jax.cli\n"
        f"try: llm_jax.cli.main([*{verb}, '--help'])\n"
        "except SystemExit: print([m for m in ('numpy', 'jax') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("\n[]\n")


@pytest.mark.slow
def test_losses_are_the_last_sentence(
    tmp_path: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a folder in another encoding than the other, most is missing: it is said, and refused."""
    japanese = tmp_path / "japanese"
    japanese.mkdir()
    for i in range(30):
        (japanese / f"{i}.txt").write_bytes((TEXTS[1] * i).encode("cp932"))
    (corpus / "bad.txt").unlink()
    out, model = tmp_path / "set", tmp_path / "t.model"
    words = ["--input", corpus, japanese, "--vocab-size", 420]
    for verb in (["data", "build", "--out", out], ["tokenizer", "train", "--out", model]):
        code, _, err = call(capsys, *verb, *words)
        assert (code, err.splitlines()[-1].count("29 of 34 ")) == (2, 1)
        assert "--max-left-out 0.5" in err
        code, _, err = call(capsys, *verb, *words, "--max-left-out", 1, "--strict")
        assert code == 2 and "--strict" in err
        assert not verb[-1].exists()
        code, printed, _ = call(capsys, *verb, *words, "--max-left-out", 0.9)
        last = printed.splitlines()[-1]
        assert code == 0
        assert last.startswith("Most of the text is missing: 29 of 34 documents (85.3%)")
        assert f"not utf-8 29 (first {japanese / '1.txt'}:1: " in last
    assert f"See {out / 'left_out.jsonl'}" in call(capsys, "data", "inspect", out)[1]
    again = call(capsys, "data", "build", "--out", out, *words, "--max-left-out", 0.9)[1]
    assert "already built" in again and again.splitlines()[-1].startswith("Most of the text")
    code, _, err = call(capsys, "data", "build", "--out", out, *words)
    assert code == 2 and "29 of 34" in err


def test_a_dataset_of_an_older_format_can_still_be_looked_into(
    tmp_path: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "set"
    call(capsys, "data", "build", "--input", corpus, "--vocab-size", 420, "--out", out)
    info = json.loads((out / "dataset.json").read_text(encoding="utf-8"))
    for name in ("held_out", "lost", "tokenizer_fidelity"):
        del info[name]
    (out / "dataset.json").write_text(json.dumps(info | {"format": 1}), encoding="utf-8")
    (out / "left_out.jsonl").unlink()
    assert call_json(capsys, "data", "inspect", out)["format"] == 1
    code, printed, _ = call(capsys, "data", "inspect", out)
    assert code == 0 and "held out" not in printed


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--max-left-out", "1.5"], "--max-left-out is 1.5"),
        (["--encoding", "utf\0"], "--encoding"),
        (["--encoding", "undefined"], "--encoding is 'undefined'"),
        (["--encoding", "rot13"], "--encoding is 'rot13'"),
        (["--input", "a\0b"], "--input 'a\\x00b'"),
        (["--input", "a" * 300], "File name too long"),
    ],
)
def test_settings_that_mean_nothing(
    tmp_path: Path, corpus: Path, flags: list[str], words: str, capsys: Any, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    build = ["data", "build", "--out", "o", "--vocab-size", "420", "--input", corpus]
    code, out, err = call(capsys, *build, *flags)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert words in err
    assert list(tmp_path.iterdir()) == [corpus]
