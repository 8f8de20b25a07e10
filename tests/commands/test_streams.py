"""The program's last words: one line, whatever happened, and the exit code that goes with it."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from llm_jax.cli import TRACEBACK, main
from llm_jax.commands import data_inspect, plan, streams
from llm_jax.config import UserError


def call(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        main(list(argv))
    out, err = capsys.readouterr()
    return int(end.value.code or 0), out, err


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch):
    """Makes `plan` raise."""

    def fail(error: Exception) -> None:
        def run(args):
            raise error

        monkeypatch.setattr(plan, "run", run)

    return fail


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (KeyError("x"), 1, ["internal error (KeyError: 'x')", TRACEBACK]),
        (MemoryError(), 1, ["Out of memory"]),
        (RuntimeError("RESOURCE_EXHAUSTED: 9 TB"), 1, ["Out of memory", "9 TB"]),
        (OSError(errno.ENOSPC, "No space left", "a/b"), 1, ["'a/b'", "No space left"]),
        (OSError(errno.ENAMETOOLONG, "File name too long", "a/b"), 2, ["'a/b'", "too long"]),
        (OSError(errno.EISDIR, "Is a directory", b"caf\xe9"), 2, ["caf\\udce9"]),
        (UserError("a\nb\x1b[31m\x07\u202e"), 2, ["error: a b\\x1b[31m\\x07\\u202e\n"]),
        (UserError("x" * 5000 + "."), 2, ["x.\n"]),
    ],
)
def test_what_a_verb_raises_is_one_line(failing, error, code, words, capsys):
    failing(error)
    found, out, err = call(capsys, "plan", "--flops", "1e19")
    assert (found, out) == (code, "")
    assert err.count("\n") == 1
    assert len(err) < 1100
    for word in words:
        assert word in err


def test_the_traceback_is_shown_on_request(failing, capsys, monkeypatch):
    monkeypatch.setenv(TRACEBACK, "1")
    failing(KeyError("x"))
    assert "Traceback" in call(capsys, "plan", "--flops", "1e19")[2]


def test_an_argument_that_is_not_utf8_is_refused(capsys, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = call(capsys, "plan", "--flops", "1e19", "--write", "caf\udce9.json")
    assert (code, out) == (2, "")
    assert err.startswith("error: Argument 5 is b'caf\\xe9.json', which is not UTF-8")
    assert list(tmp_path.iterdir()) == []


def test_japanese_stays_readable(capsys, monkeypatch):
    def run(args):
        raise UserError("猫 は いない。")

    monkeypatch.setattr(data_inspect, "run", run)
    assert call(capsys, "data", "inspect", "x")[2] == "error: 猫 は いない。\n"


def test_seeds_and_sizes_have_an_end(capsys):
    for words in (
        ["generate", "run", "--seed", str(2**70)],
        ["fit", "runs.csv", "--seed", "-1"],
        ["train", "tiny", "--seed", str(2**70)],
        ["train", "tiny", "--data.seed", "-1"],
        ["train", "tiny", "--data.batch-size", str(10**15)],
        ["train", "tiny", "--data.batch-size", str(2**30), "--data.seq-len", "64"],
    ):
        code, out, err = call(capsys, *words)
        assert (code, out) == (2 if "--seed" in words and words[0] != "train" else 78, ""), err
        assert err.count("\n") == 1
        assert words[-2].split("-")[-1] in err or "seq_len" in err


def test_complain_keeps_both_ends(capsys):
    streams.complain("begin " + "x" * 9000 + " end.")
    err = capsys.readouterr().err
    assert err.startswith("error: begin ")
    assert err.endswith(" end.\n")
    assert len(err) <= streams.LONGEST + 20


def test_a_value_that_is_missing_is_not_taken_for_an_empty_one(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for words, name in (
        (["plan", "--flops=--"], "--flops"),
        (["plan", "--flops", "1e19", "--write="], "--write"),
        (["report", "run", "--out", ""], "--out"),
        (["fit", "x.csv", "--figure", "x.tmp"], "--figure"),
        (["fit", "x.csv", "--bootstraps", "1e15"], "--bootstraps"),
    ):
        code, out, err = call(capsys, *words)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert name in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_of_two_outputs_none_is_written_if_one_cannot_be(capsys, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    words = ["plan", "--flops", "1e19", "--write", "run.json", "--report", "folder"]
    code, _, err = call(capsys, *words)
    assert code == 2
    assert "folder" in err
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
