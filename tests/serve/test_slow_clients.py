"""Clients that send or read slowly, or not at all, by bare sockets; and too many of them."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from a_server import Running

REQUEST = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50000\r\n"
JSON = b"Content-Type: application/json\r\n\r\n"


@pytest.fixture
def short_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm_jax.serve.connection.HEAD_SECONDS", 0.3)
    monkeypatch.setattr("llm_jax.serve.connection.FLUSH_SECONDS", 0.1)
    monkeypatch.setattr("llm_jax.serve.gate.BODY_SECONDS", 0.3)


@pytest.fixture
def client(running: Running, short_limits: None) -> Iterator[socket.socket]:
    with socket.create_connection(running.address, timeout=20) as opened:
        yield opened


def wait_until(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def rest_of(client: socket.socket) -> bytes:
    """All until the server closes."""
    parts = []
    try:
        while part := client.recv(1 << 16):
            parts.append(part)
    except ConnectionError:
        pass
    return b"".join(parts)


def one_byte_at_a_time(client: socket.socket) -> bytes:
    """Sends until the server closes; its answer. Without a limit it would go on for 20 seconds."""
    end = time.monotonic() + 20
    try:
        while time.monotonic() < end:
            client.sendall(b"x")
            time.sleep(0.02)
    except ConnectionError:
        return rest_of(client)
    raise AssertionError("the connection is still open")


def status_and_error(answer: bytes) -> tuple[int, dict]:
    head, _, content = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(content)["error"]


def test_a_head_that_comes_byte_by_byte_is_cut_off(client):
    client.sendall(b"GET / HTTP/1.1\r\nX: ")
    status, error = status_and_error(one_byte_at_a_time(client))
    assert (status, error["code"]) == (408, "timeout")
    assert "did not arrive in 0.3 s" in error["message"]


def test_a_later_head_is_cut_off_too(client):
    client.sendall(REQUEST)
    assert client.recv(1000).startswith(b"HTTP/1.1 200 ")
    client.sendall(b"GET / HT")
    assert status_and_error(one_byte_at_a_time(client))[0] == 408


def test_a_body_that_comes_byte_by_byte_is_cut_off(client):
    client.sendall(POST + JSON)
    status, error = status_and_error(one_byte_at_a_time(client))
    assert (status, error["code"]) == (408, "timeout")


def test_a_body_after_its_answer_is_cut_off(client):
    """The answer needs no body, so nothing waits for it: only the connection sees it."""
    client.sendall(POST + b"\r\n")
    assert client.recv(1000).startswith(b"HTTP/1.1 415 ")
    one_byte_at_a_time(client)


def test_a_client_that_sends_nothing_is_closed(client):
    assert rest_of(client) == b""


def test_requests_in_one_packet_are_all_answered_and_the_connection_ends(client):
    client.sendall(REQUEST * 3)
    assert rest_of(client).count(b"HTTP/1.1 200 ") == 3


def test_an_idle_connection_is_closed(start, same_models, monkeypatch):
    monkeypatch.setattr("llm_jax.serve.listen.IDLE_SECONDS", 0.2)
    running = start(same_models())
    with socket.create_connection(running.address, timeout=10) as client:
        client.sendall(REQUEST)
        assert rest_of(client).startswith(b"HTTP/1.1 200 ")


def test_an_answer_may_take_longer_than_a_head(running, short_limits):
    """The limit is on what the client has to do."""
    body = json.dumps({"model": "random", "prompt": ["x"] * 64, "max_tokens": 90}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
    with socket.create_connection(running.address, timeout=60) as client:
        client.sendall(head.encode() + JSON + body)
        assert rest_of(client).startswith(b"HTTP/1.1 200 ")


def test_a_client_that_does_not_read_the_end_is_given_up(running, short_limits):
    body = json.dumps({"prompt": "ab " * 100_000, "return_token_strs": True}).encode()
    head = f"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(20)
        client.connect(running.address)
        client.sendall(head.encode() + JSON + body)
        port = client.getsockname()[1]

        def is_open() -> bool:
            connections = list(running.loop.server_state.connections)
            return any(one.client[1] == port for one in connections)

        wait_until(is_open)
        wait_until(lambda: not is_open())
        answer = rest_of(client)
    size = int(answer.partition(b"content-length: ")[2].split()[0])
    assert len(answer) < size


def test_one_connection_too_many_is_refused(start, same_models):
    running = start(same_models(), connections=2)
    with ExitStack() as stack:
        for _ in range(2):
            held = stack.enter_context(socket.create_connection(running.address, timeout=20))
            held.sendall(b"GET /")
        wait_until(lambda: len(running.loop.server_state.connections) == 2)
        with socket.create_connection(running.address, timeout=20) as client:
            answer = rest_of(client)
        status, error = status_and_error(answer)
        assert (status, error["code"]) == (503, "too_many_connections")
        assert b"Retry-After: 1" in answer
        held.close()
        wait_until(lambda: len(running.loop.server_state.connections) == 1)
        with running.client() as other:
            assert other.get("/health").status_code == 200
            text = other.get("/metrics").text
    assert 'llm_jax_http_requests_total{path="other",status="503"} 1.0' in text


@pytest.mark.parametrize(
    "sent", [b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", b"GET / HTTP/1.1\r\nX: " + b"x" * 70_000]
)
def test_what_is_not_http_has_an_error_of_our_form(running, sent):
    with socket.create_connection(running.address, timeout=20) as client:
        client.sendall(sent)
        status, error = status_and_error(rest_of(client))
    assert status == 400 and error["type"] == "invalid_request_error"
