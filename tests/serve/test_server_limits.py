"""Wrong requests, keys, limits, clients that leave, and the end of the server."""

from __future__ import annotations

import base64
import gzip
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from fastapi.exceptions import RequestValidationError

from llm_jax.serve.bodies import checked

LONG = {"model": "cycle", "prompt": "x", "max_tokens": 90, "temperature": 0}


def wait_until(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def is_idle(server) -> bool:
    stats = [model.engine.stats for model in server.models]
    return all(one.running == one.waiting == 0 for one in stats)


@pytest.mark.parametrize(
    ("path", "body", "status", "param"),
    [
        ("completions", {"model": "cycle"}, 400, "prompt"),
        ("completions", {"prompt": "x"}, 400, "model"),
        ("completions", {"model": "cyle", "prompt": "x"}, 404, "model"),
        ("completions", {"model": "cycle", "prompt": 3}, 400, "prompt"),
        ("completions", {"model": "cycle", "prompt": []}, 400, "prompt"),
        ("completions", {"model": "cycle", "prompt": [5000]}, 400, "prompt"),
        ("completions", {"model": "cycle", "prompt": "\ud800"}, 400, None),
        ("completions", {"model": "cycle", "prompt": "x" * 400}, 400, "prompt"),
        ("completions", LONG | {"max_tokens": 95}, 400, "max_tokens"),
        ("completions", LONG | {"max_tokens": -1}, 400, "max_tokens"),
        ("completions", LONG | {"max_tokens": "5"}, 400, "max_tokens"),
        ("completions", LONG | {"temperature": 1e-9}, 400, "temperature"),
        ("completions", LONG | {"temperature": -1}, 400, "temperature"),
        ("completions", LONG | {"top_p": 0}, 400, "top_p"),
        ("completions", LONG | {"n": 0}, 400, "n"),
        ("completions", LONG | {"n": 3, "best_of": 2}, 400, "best_of"),
        ("completions", LONG | {"n": 2, "best_of": 4, "stream": True}, 400, "best_of"),
        ("completions", LONG | {"logprobs": 21}, 400, "logprobs"),
        ("completions", LONG | {"logit_bias": {"x": 1}}, 400, "logit_bias"),
        ("completions", LONG | {"logit_bias": {"1": 101}}, 400, "logit_bias"),
        ("completions", LONG | {"stop": [""]}, 400, "stop"),
        ("completions", LONG | {"stop_token_ids": [300]}, 400, "stop_token_ids"),
        ("completions", LONG | {"seed": -1}, 400, "seed"),
        ("completions", LONG | {"suffix": "later"}, 400, "suffix"),
        ("completions", LONG | {"max_token": 5}, 400, "max_token"),
        ("completions", LONG | {"stream_options": {}}, 400, "stream_options"),
        ("chat/completions", {"model": "cycle", "messages": []}, 400, "messages"),
        (
            "chat/completions",
            {"model": "cycle", "messages": [{"role": "user"}]},
            400,
            "messages.0",
        ),
        (
            "chat/completions",
            {"model": "cycle", "messages": [{"role": "x", "content": ""}]},
            400,
            "messages.0.role",
        ),
        (
            "chat/completions",
            {
                "model": "cycle",
                "messages": [
                    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}
                ],
            },
            400,
            "messages.0.content.0.type",
        ),
        ("completions", LONG | {"n": 1000}, 400, "n"),
        ("completions", LONG | {"temperature": float("nan")}, 400, "temperature"),
        ("embeddings", {"model": "cycle", "input": ""}, 400, "input"),
        ("embeddings", {"model": "cycle", "input": "x", "dimensions": 3}, 400, "dimensions"),
    ],
)
def test_a_wrong_field_is_named(running, path, body, status, param):
    content = json.dumps(body).encode()
    with running.client() as client:
        made = client.post(
            f"/v1/{path}", content=content, headers={"Content-Type": "application/json"}
        )
    error = made.json()["error"]
    assert (made.status_code, error["param"]) == (status, param), error
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"].endswith((".", "?"))


def test_the_nearest_model_is_named(running):
    error = running.post("/v1/completions", model="cyle", prompt="x").json()["error"]
    assert "'cycle'" in error["message"] and error["code"] == "model_not_found"


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"3", b"\xff", b'{"prompt": NaN}', b"[" * 100_000, b"9" * 9999]
)
def test_a_body_that_is_no_object(running, content):
    with running.client() as client:
        made = client.post(
            "/v1/completions", content=content, headers={"Content-Type": "application/json"}
        )
    assert made.status_code == 400 and made.json()["error"]["message"]


@pytest.mark.slow
def test_a_large_body_is_read_beside_the_loop_and_ends_at_its_first_fault(running, monkeypatch):
    threads, faults = [], []

    def noted(model, content):
        threads.append(threading.current_thread())
        try:
            return checked(model, content)
        except RequestValidationError as error:
            faults.append(len(error.errors()))
            raise

    monkeypatch.setattr("llm_jax.serve.bodies.checked", noted)
    for many in (['"a"'] * 60_000, ["-1"] * 200_000, ["[1]"] * 30_000):
        content = f'{{"model": "cycle", "prompt": [{",".join(many)}]}}'.encode()
        with running.client() as client:
            made = client.post(
                "/v1/completions", content=content, headers={"Content-Type": "application/json"}
            )
        assert (made.status_code, made.json()["error"]["param"]) == (400, "prompt")
        assert len(made.text) < 1000
    assert len(threads) == 3 and all(one.name.startswith("asyncio_") for one in threads)
    assert len(faults) == 3 and max(faults) <= 8


def test_other_places_and_methods(running):
    with running.client() as client:
        assert client.get("/v1/nothing").json()["error"]["type"] == "not_found_error"
        assert client.get("/v1/completions").status_code == 405
        assert client.get("/v1/models/cyle").status_code == 404
        assert client.get("/docs").status_code == 404
        assert client.get("/health").json() == {"status": "ok"}
        assert (
            "access-control-allow-origin"
            not in client.get("/v1/models", headers={"Origin": "http://elsewhere"}).headers
        )
        # A name of another site that was pointed at this machine.
        for host in ("evil.example", "127.evil.example:80", "127.0.0.1.evil.example", "[::1].x"):
            refused = client.get("/v1/models", headers={"Host": host})
            assert refused.status_code == 403, host
            assert refused.json()["error"]["type"] == "permission_error"
        for host in ("localhost:1", "127.0.0.1", "127.9.9.9:80", "[::1]:8000", "[::1]"):
            assert client.get("/v1/models", headers={"Host": host}).status_code == 200, host


def test_a_compressed_body_is_refused(running):
    body = gzip.compress(json.dumps(LONG).encode())
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    with running.client() as client:
        made = client.post("/v1/completions", content=body, headers=headers)
    assert made.status_code == 415 and "compressed" in made.json()["error"]["message"]


def test_a_body_too_large(running):
    made = running.post("/v1/completions", model="cycle", prompt="x" * (1 << 20))
    assert made.status_code == 413 and made.json()["error"]["code"] == "body_too_large"


def test_keys_protect_all_but_health(start, same_models):
    running = start(same_models(), keys=("first-key", "second-key"))
    with running.client() as client:
        assert client.get("/health").status_code == 200
        for path in ("/", "/v1/models", "/metrics", "/openapi.json", "/nothing"):
            made = client.get(path)
            assert (made.status_code, made.json()["error"]["code"]) == (401, "invalid_api_key")
        for value, status in {
            "Bearer first-key": 200,
            "bearer second-key": 200,
            "Bearer first-ke": 401,
            "Bearer": 401,
            "first-key": 401,
            "Basic " + base64.b64encode(b"any:second-key").decode(): 200,
            "Basic " + base64.b64encode(b"second-key:").decode(): 401,
            "Basic !": 401,
        }.items():
            made = client.get("/v1/models", headers={"Authorization": value})
            assert made.status_code == status, value


def test_a_full_queue_and_an_answer_that_takes_too_long(start, same_models):
    running = start(same_models(), seconds=0.001)
    made = running.post("/v1/completions", **LONG)
    assert (made.status_code, made.json()["error"]["type"]) == (504, "timeout_error")
    many = running.post("/v1/completions", **LONG | {"n": 64, "temperature": 1})
    assert (many.status_code, many.headers["retry-after"]) == (429, "1")
    wait_until(lambda: is_idle(running.server))


def test_a_body_that_does_not_come(running, monkeypatch):
    monkeypatch.setattr("llm_jax.serve.gate.BODY_SECONDS", 0.1)
    head = b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", int(running.url.rpartition(":")[2]))) as client:
        client.sendall(head + b'Content-Length: 100\r\n\r\n{"prompt"')
        assert b" 408 " in client.recv(1000).splitlines()[0]


def test_a_client_that_does_not_read_is_given_up(start, same_models, monkeypatch):
    monkeypatch.setattr("llm_jax.serve.gate.SEND_SECONDS", 0.2)
    running = start(same_models(queue=64))
    asked = LONG | {"n": 64, "logprobs": 20, "stream": True, "ignore_eos": True}
    body = json.dumps(asked).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", int(running.url.rpartition(":")[2])))
        client.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode() + body)
        wait_until(lambda: running.server.gate.inside == 1)
        wait_until(lambda: running.server.gate.inside == 0)
        with client.makefile("rb") as answer:
            assert b"[DONE]" not in answer.read()
    wait_until(lambda: is_idle(running.server))


def test_a_client_that_leaves_frees_its_slot(start, same_models):
    """Also one that waits for a whole answer."""
    (slow,) = models = same_models()
    step = slow.engine.step
    slow.engine.step = lambda: time.sleep(0.05) or step()
    running = start(models)
    body = json.dumps(LONG | {"n": 8, "temperature": 1, "ignore_eos": True}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
    port = int(running.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode() + body)
        wait_until(lambda: not is_idle(running.server))
    wait_until(lambda: is_idle(running.server))
    assert slow.engine.stats.cancelled == 8
    wait_until(lambda: running.server.gate.inside == 0)


def test_sixteen_clients_get_what_each_gets_alone(running):
    """One in five leaves after its third piece; the slots of those are free again."""
    prompts = [f"{'def main '[: i % 9]}{i}" for i in range(16)]
    asked = {"model": "random", "temperature": 0, "max_tokens": 40}
    alone = [running.complete(**asked, prompt=prompt)["choices"][0]["text"] for prompt in prompts]

    def one(place):
        body = asked | {"prompt": prompts[place], "stream": True}
        text = ""
        with running.client() as client, client.stream("POST", "/v1/completions", json=body) as got:
            for number, line in enumerate(got.iter_lines()):
                if place % 5 == 4 and number > 3:
                    return None
                if line.startswith("data: {"):
                    text += json.loads(line[6:])["choices"][0]["text"]
        return text

    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(one, range(16)))
    for place, text in enumerate(together):
        assert text is None if place % 5 == 4 else text == alone[place]
    wait_until(lambda: is_idle(running.server))
