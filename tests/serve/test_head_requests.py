"""HEAD on what GET answers: the same head, without a body."""

from __future__ import annotations

import socket

import pytest
from a_server import Running, Start

PATHS = ("/health", "/v1/models", "/v1/models/cycle", "/metrics", "/", "/openapi.json", "/nothing")
CHANGING = {"date", "x-request-id"}


@pytest.mark.parametrize("path", PATHS)
def test_the_head_is_that_of_get(running: Running, path: str) -> None:
    with running.client() as client:
        whole, head = client.get(path), client.head(path)
    assert head.status_code == whole.status_code
    assert head.content == b"" and whole.content
    different = {"content-length"} | CHANGING if path == "/metrics" else CHANGING  # it counts on
    for name in {*whole.headers, *head.headers} - different:
        assert head.headers[name] == whole.headers[name], name
    if path != "/metrics":
        assert int(head.headers["content-length"]) == len(whole.content)


def test_no_byte_of_a_body_is_sent(running: Running) -> None:
    """What is sent after the head would be taken for the next answer."""
    request = b" / HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with socket.create_connection(running.address, timeout=20) as client:
        client.sendall((b"HEAD" + request) * 2 + b"GET /health HTTP/1.1\r\nHost: localhost\r\n")
        client.sendall(b"Connection: close\r\n\r\n")
        parts = []
        while part := client.recv(1 << 16):
            parts.append(part)
    *heads, last, body = b"".join(parts).split(b"\r\n\r\n")
    assert len(heads) == 2
    assert all(one.startswith(b"HTTP/1.1 200 ") for one in (*heads, last))
    assert body == b'{"status":"ok"}'


def test_where_there_is_no_get_there_is_no_head(running: Running) -> None:
    with running.client() as client:
        made = client.head("/v1/completions")
        assert (made.status_code, made.content) == (405, b"")
        assert made.headers["allow"] == "POST"
        wrong = client.post("/health", json={})
        assert (wrong.status_code, wrong.headers["allow"]) == (405, "GET, HEAD")


def test_head_needs_the_key_and_tells_of_the_end(start: Start, same_models) -> None:
    running = start(same_models(), keys=("key-of-the-test",))
    with running.client() as client:
        assert client.head("/v1/models").status_code == 401
        assert client.head("/health").status_code == 200
        running.server.gate.draining = True
        assert client.head("/health").status_code == 503
        running.server.gate.draining = False
