"""The server as a program: what it refuses before it loads, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from verb_calls import call

from llm_jax.runs.claim import only_writer

LONG = {"model": "tiny", "prompt": "x", "max_tokens": 90, "temperature": 0}


def wait_until(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def started(run_folder: Path, *flags: str, **environment: str) -> tuple[subprocess.Popen, str]:
    """`llm-jax serve` as a program, and its address."""
    words = [sys.executable, "-m", "llm_jax", "serve", str(run_folder), "--port", "0", *flags]
    program = subprocess.Popen(
        words, env=os.environ | environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    assert program.stderr is not None
    said = []
    for line in program.stderr:
        said.append(line)
        if line.startswith("serving at "):
            return program, line.split()[-1]
    raise AssertionError("".join(said))


@pytest.mark.slow
def test_sigterm_lets_accepted_requests_be_answered(run_folder):
    key = {"Authorization": "Bearer secret-of-the-test"}  # pragma: allowlist secret
    program, url = started(
        run_folder, "--api-key-env", "SERVE_KEY", "--slots", "2", "--json", "--draft",
        str(run_folder),
        SERVE_KEY="secret-of-the-test",
    )  # fmt: skip
    try:
        body = LONG | {"n": 64, "stream": True, "ignore_eos": True}
        with ExitStack() as stack:
            client = stack.enter_context(httpx.Client(base_url=url, headers=key, timeout=60))
            other = stack.enter_context(httpx.Client(base_url=url, headers=key, timeout=60))
            assert other.get("/v1/models").status_code == 200
            stream = stack.enter_context(client.stream("POST", "/v1/completions", json=body))
            lines = stream.iter_lines()
            next(lines)
            program.send_signal(signal.SIGTERM)
            wait_until(lambda: other.get("/health").status_code == 503)
            refused = other.post("/v1/completions", json=LONG)
            assert refused.status_code == 503, "the accepted request has ended too early"
            assert refused.json()["error"]["code"] == "draining"
            rest = [line for line in lines if line]
        assert rest[-1] == "data: [DONE]"
        ends = [json.loads(line[6:])["choices"][0]["finish_reason"] for line in rest[:-1]]
        assert ends.count("length") == 64
        out, err = program.communicate(timeout=30)
        assert program.returncode == 0, err
        made = json.loads(out)
        assert made["models"] == ["tiny"] and made["tokens"] >= 64 * 90
        assert "secret-of-the-test" not in out + err and "Traceback" not in err
    finally:
        program.kill()


def test_what_is_wrong_is_said_before_anything_is_loaded(run_folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("llm_jax.serve.opening.load", None)

    def said(*words):
        code, out, err = call(capsys, "serve", *words)
        assert (code, out) == (2, ""), err
        return err.splitlines()[-1]

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"Port {port} of 127.0.0.1 is in use" in said(run_folder, "--port", port)
    assert "no model in" in said(tmp_path)
    assert "has no step 7: it has 0" in said(f"{run_folder}@7")
    assert "give them names" in said(run_folder, run_folder)
    assert "did you mean 'tiny'" in said(
        run_folder, "--chat-template", f"tny={run_folder}/run.json"
    )
    (tmp_path / "bad.jinja").write_text("{% for %}")
    assert "is not one" in said(run_folder, "--chat-template", tmp_path / "bad.jinja")
    assert "'NO_SUCH_KEY' is not set" in said(run_folder, "--api-key-env", "NO_SUCH_KEY")
    assert "one model, not 2" in said(run_folder, f"b={run_folder}", "--draft", run_folder)
    assert "no model in" in said(run_folder, "--draft", tmp_path)
    (tmp_path / "key").write_text("short\n")
    assert "at least 8 characters" in said(run_folder, "--api-key-file", tmp_path / "key")
    assert "--host" in said(run_folder, "--host", "203.0.113.7", "--port", "0")
    # A run that is being written may be served, and is said to be.
    with (
        only_writer(run_folder, "llm-jax train", inside=True),
        socket.create_server(("127.0.0.1", 0)) as taken,
    ):
        _, _, err = call(capsys, "serve", run_folder, "--port", taken.getsockname()[1])
    assert "is being written by `llm-jax train`" in err and "step 0 is served" in err
