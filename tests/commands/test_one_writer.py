"""Each verb that writes a folder leaves it alone while another process writes it."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import tiny

from llm_jax.cli import main
from llm_jax.config import to_json
from llm_jax.runs.claim import only_writer

VERBS = {
    "train": ["train", "RUN"],
    "data build": ["data", "build", "--input", "TEXT", "--vocab-size", "300", "--out", "OUT"],
    "export": ["export", "nowhere", "--to", "hf", "OUT"],
    "import": ["import", "TEXT", "OUT", "--tokenizer", "TOKENIZER"],
    "ladder": ["ladder", "--data", "DATA", "--minutes", "1", "--out", "OUT"],
}


@pytest.mark.parametrize("verb", VERBS)
def test_the_second_writer_is_refused(
    verb: str, tiny_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.txt").write_text("a few words " * 99)
    run = tmp_path / "run.json"
    run.write_text(
        to_json(tiny.run_config(out, tiny_dataset, model=tiny.model_config(vocab_size=tiny.VOCAB)))
    )
    places = {
        "OUT": out,
        "TEXT": tmp_path / "text",
        "RUN": run,
        "DATA": tiny_dataset,
        "TOKENIZER": tiny_dataset / "tokenizer.model",
    }
    command = [str(places.get(word, word)) for word in VERBS[verb]]
    with only_writer(out, f"llm-jax {verb}", inside=verb == "train"):
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(SystemExit) as stopped:
            main(command)
        assert stopped.value.code == 1
        said = capsys.readouterr().err
        last = said.splitlines()[-1]
        assert f"error: {str(out)!r} is being written by `llm-jax {verb}` (process " in last
        assert re.search(r"since \d{4}-\d\d-\d\d .*, or choose another folder", last)
        assert sorted(tmp_path.rglob("*")) == before
    assert not out.exists() or not list(out.iterdir())


def test_a_dataset_that_is_there_can_be_looked_at(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text").mkdir()
    for name in "ab":
        (tmp_path / "text" / f"{name}.txt").write_text(f"a few {name} words " * 99)
    command = ["data", "build", "--input", str(tmp_path / "text"), "--vocab-size", "280"]
    command += ["--out", str(tmp_path / "out"), "--json"]
    for built_before in (False, True):
        with pytest.raises(SystemExit) as stopped:
            main(command)
        assert stopped.value.code == 0
        assert json.loads(capsys.readouterr().out)["built_before"] == built_before
    with only_writer(tmp_path / "out", "llm-jax data build"), pytest.raises(SystemExit) as stopped:
        main(command)
    assert stopped.value.code == 0
    assert json.loads(capsys.readouterr().out)["built_before"]


@pytest.mark.slow
def test_all_processes_of_a_run_hear_who_holds_it(tiny_dataset: Path, tmp_path: Path) -> None:
    out, path = tmp_path / "out", tmp_path / "run.json"
    model = tiny.model_config(vocab_size=tiny.VOCAB)
    path.write_text(to_json(tiny.run_config(out, tiny_dataset, model=model)))
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    gang = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo",
        "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
        "JAX_NUM_PROCESSES": "2",
    }
    command = [sys.executable, "-m", "llm_jax", "train", str(path)]
    with only_writer(out, "llm-jax train", inside=True):
        children = [
            subprocess.Popen(command, env=gang | {"JAX_PROCESS_ID": i}, stderr=-1, text=True)
            for i in "01"
        ]
        said = [child.communicate(timeout=120)[1].splitlines()[-1] for child in children]
        assert [child.returncode for child in children] == [1, 1], said
    assert said[0] == said[1]
    assert f"(process {os.getpid()} on " in said[0]
    assert list(out.iterdir()) == []
