"""Which addresses the server listens at, and what it calls them."""

from __future__ import annotations

import errno
import socket

import httpx
import pytest

from llm_jax.config import UserError
from llm_jax.serve import listen
from llm_jax.serve.settings import SPARE, Settings, is_loopback, most_connections


def has(address: str) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family) as tried:
            tried.bind((address, 0))
    except OSError:
        return False
    return True


def resolver(monkeypatch, **names: list[str]) -> None:
    """The machine's names, whatever its files say."""

    def found(host, port, family=0, type=0):
        return [
            (socket.AF_INET6, type, 6, "", (address, port, 0, 0))
            if ":" in address
            else (socket.AF_INET, type, 6, "", (address, port))
            for address in names.get(host, [host])
        ]

    monkeypatch.setattr(listen.socket, "getaddrinfo", found)


def test_a_name_of_several_addresses_is_all_of_them(monkeypatch):
    """Clients of `localhost` try one or the other first."""
    resolver(monkeypatch, localhost=["127.0.0.1", "127.0.0.2", "127.0.0.1"])
    with listen.listen(Settings(host="localhost", port=0)) as opened:
        port = opened.sockets[0].getsockname()[1]
        assert opened.urls == [f"http://127.0.0.1:{port}", f"http://127.0.0.2:{port}"]
        for host in ("127.0.0.1", "127.0.0.2"):
            socket.create_connection((host, port), timeout=5).close()
        with pytest.raises(UserError, match=f"Port {port} of localhost is in use"):
            listen.listen(Settings(host="localhost", port=port))


def test_a_port_that_is_taken_at_the_second_address_is_not_chosen(monkeypatch):
    resolver(monkeypatch, both=["127.0.0.1", "127.0.0.2"])
    original, failed = listen._socket, []

    def taken_once(family, address, alone):
        if address[0] == "127.0.0.2" and not failed:
            failed.append(address[1])
            raise OSError(errno.EADDRINUSE, "in use")
        return original(family, address, alone)

    monkeypatch.setattr(listen, "_socket", taken_once)
    with listen.listen(Settings(host="both", port=0)) as opened:
        assert len(opened.urls) == 2 and failed


def test_an_address_that_the_machine_lacks_is_left_out_beside_one_that_it_has(monkeypatch):
    resolver(monkeypatch, half=["203.0.113.7", "127.0.0.1"], none=["203.0.113.7"])
    with listen.listen(Settings(host="half", port=0)) as opened:
        assert [url.rpartition(":")[0] for url in opened.urls] == ["http://127.0.0.1"]
    with pytest.raises(UserError, match="cannot listen at 'none'"):
        listen.listen(Settings(host="none", port=0))


@pytest.mark.skipif(not has("::1"), reason="needs IPv6")
def test_ipv6_is_in_brackets(monkeypatch, start, same_models):
    for host in ("::1", "[::1]"):
        with listen.listen(Settings(host=host, port=0)) as opened:
            port = opened.sockets[0].getsockname()[1]
            assert opened.urls == [f"http://[::1]:{port}"]
    resolver(monkeypatch, localhost=["::1", "127.0.0.1"])
    running = start(same_models(), host="localhost")
    assert running.url.startswith("http://[::1]:")
    port = running.address[1]
    monkeypatch.undo()
    for url in (f"http://[::1]:{port}", f"http://127.0.0.1:{port}", f"http://localhost:{port}"):
        assert httpx.get(f"{url}/v1/models").status_code == 200
    refused = httpx.get(f"http://127.0.0.1:{port}/v1/models", headers={"Host": "evil.example"})
    assert refused.status_code == 403


@pytest.mark.parametrize(
    ("host", "only_here"),
    [
        ("localhost", True), ("LocalHost", True), ("127.0.0.1", True), ("127.9.9.9", True),
        ("::1", True), ("[::1]", True), ("::ffff:127.0.0.1", True), ("0.0.0.0", False),
        ("::", False), ("localhost.example", False), ("127.evil.example", False),
        ("::ffff:8.8.8.8", False), ("", False),
    ],
)  # fmt: skip
def test_what_is_loopback(host, only_here):
    assert is_loopback(host) == only_here


def test_connections_are_as_many_as_texts_and_files(monkeypatch):
    limits = {"files": (10_000, 10_000)}
    monkeypatch.setattr("resource.getrlimit", lambda _: limits["files"])
    assert most_connections(264) == 264 + SPARE
    assert most_connections(20_000) == 10_000 - SPARE
    limits["files"] = (-1, -1)
    assert most_connections(20_000) == 20_000 + SPARE
