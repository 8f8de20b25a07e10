"""What clients and the log are told of faults that are the server's."""

from __future__ import annotations

import dataclasses
import json
import re

import jax
import numpy as np
import pytest
from a_server import served

ASKED = {"model": "cycle", "prompt": "x", "max_tokens": 60, "temperature": 0}
SECRET = "/home/somebody/secret"


def fail(*_: object, **__: object) -> None:
    raise RuntimeError(SECRET)


def told(error: dict, said: str, kind: str) -> None:
    """The client has a general sentence with an id, under which the log has the cause."""
    assert error["type"] == kind and SECRET not in str(error)
    (number,) = re.findall(r"the server's log says why, at (req_[0-9a-f]{16})\.$", error["message"])
    assert f"request {number}: " in said


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_engine_that_fails_is_said(start, same_models, capsys):
    (broken,) = models = same_models()
    broken.engine._step = fail
    running = start(models)
    for _ in range(2):  # the first meets the error, the second an engine that is closed
        made = running.post("/v1/completions", **ASKED)
        assert made.status_code == 503
        said = capsys.readouterr().err
        told(made.json()["error"], said, "unavailable_error")
        assert made.headers["x-request-id"] in said
    streamed = running.post("/v1/completions", **ASKED, stream=True)
    assert streamed.status_code == 503
    told(streamed.json()["error"], capsys.readouterr().err, "unavailable_error")
    with running.client() as client:
        assert client.get("/health").status_code == 503


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_engine_that_fails_within_a_stream_is_said(start, same_models, capsys):
    (broken,) = models = same_models()
    step, steps = broken.engine._step, iter(range(2))
    broken.engine._step = lambda: fail() if next(steps, None) is None else step()
    running = start(models)
    made = running.post("/v1/completions", **ASKED, stream=True)
    assert made.status_code == 200
    *_, last, end = [line for line in made.text.split("\n\n") if line]
    assert end == "data: [DONE]"
    said = capsys.readouterr().err
    told(json.loads(last[6:])["error"], said, "unavailable_error")
    assert SECRET in said


def test_a_fault_of_our_own_is_said(running, monkeypatch, capsys):
    monkeypatch.setattr("llm_jax.serve.app.Completion", fail)
    made = running.post("/v1/completions", **ASKED)
    assert made.status_code == 500
    said = capsys.readouterr().err
    told(made.json()["error"], said, "server_error")
    assert f"RuntimeError: {SECRET}" in said and "Traceback" in said


def test_a_fault_within_a_stream_is_said(running, monkeypatch, capsys):
    monkeypatch.setattr("llm_jax.serve.completions.Completion._usage", fail)
    made = running.post(
        "/v1/completions", **ASKED, stream=True, stream_options={"include_usage": True}
    )
    assert made.status_code == 200
    *_, last, end = [line for line in made.text.split("\n\n") if line]
    assert end == "data: [DONE]"
    said = capsys.readouterr().err
    told(json.loads(last[6:])["error"], said, "server_error")
    assert f"RuntimeError: {SECRET}" in said


def test_a_model_that_computes_nonsense_is_said(start, running, capsys):
    """Also under a constraint, which is not at fault."""
    model = running.models["cycle"]
    params = jax.tree.map(np.array, model.params)
    params["final_norm"]["scale"][:] = np.nan
    running = start([served("cycle", dataclasses.replace(model, params=params))])
    form = {"response_format": {"type": "json_object"}}
    chat = {"model": "cycle", "messages": [{"role": "user", "content": "x"}]}
    for path, body in (("completions", ASKED), ("chat/completions", chat | form)):
        made = running.post(f"/v1/{path}", **body)
        assert made.status_code == 500, made.text
        said = capsys.readouterr().err
        told(made.json()["error"], said, "server_error")
        assert "not finite" in said
    with running.client() as client:
        assert client.get("/health").status_code == 200


def test_each_answer_has_its_id(running):
    with running.client() as client:
        found = [client.get(path).headers["x-request-id"] for path in ("/health", "/no", "/")]
    assert len(set(found)) == 3
