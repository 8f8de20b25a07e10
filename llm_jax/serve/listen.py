"""The sockets, the loop, and how the server ends.

The first SIGTERM or Ctrl-C lets what was accepted be answered, and refuses what is new with 503; a
second one ends at once.
"""

from __future__ import annotations

import errno
import functools
import gc
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any

import uvicorn

from llm_jax.config import UserError
from llm_jax.config.wording import counted
from llm_jax.serve.app import Server
from llm_jax.serve.connection import IDLE_SECONDS, Connection
from llm_jax.serve.settings import Settings

BACKLOG = 512
FREE_PORT_TRIES = 8


@dataclass(frozen=True)
class Listening:
    """The sockets of a server, one for each address that its host stands for. Use it in `with`."""

    sockets: tuple[socket.socket, ...]

    def __enter__(self) -> Listening:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for opened in self.sockets:
            opened.close()

    @property
    def urls(self) -> list[str]:
        """http://HOST:PORT of each."""
        return [_url(*opened.getsockname()[:2]) for opened in self.sockets]


def listen(settings: Settings) -> Listening:
    """Listens at all addresses of `settings.host` that this machine has: `localhost` may be two,
    and clients try either first. They may connect from now on, and wait until the models are
    loaded.

    Raises:
      UserError: the port is in use, or there is no such address.
    """
    try:
        found = socket.getaddrinfo(
            settings.host.strip("[]"), settings.port, type=socket.SOCK_STREAM
        )
        addresses = list(dict.fromkeys((family, address) for family, *_, address in found))
        tries = FREE_PORT_TRIES if settings.port == 0 and len(addresses) > 1 else 1
        for left in reversed(range(tries)):
            try:
                return Listening(_opened(addresses, settings.port))
            except OSError as error:
                # A port that is free at one address may be taken at another.
                if error.errno != errno.EADDRINUSE or not left:
                    raise
        raise AssertionError("not reached")
    except OSError as error:
        raise UserError(_sentence(settings, error)) from None


def _opened(addresses: Sequence[tuple[int, Any]], port: int) -> tuple[socket.socket, ...]:
    """A socket at each address that is this machine's, all at the same port."""
    made: list[socket.socket] = []
    absent: OSError | None = None
    try:
        for family, (host, _, *rest) in addresses:
            try:
                made.append(_socket(family, (host, port, *rest), len(addresses) == 1))
            except OSError as error:
                if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    raise
                absent = error
            else:
                port = made[-1].getsockname()[1]
        if not made and absent is not None:
            raise absent
    except OSError:
        Listening(tuple(made)).close()
        raise
    return tuple(made)


def _socket(family: int, address: Any, alone: bool) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6 and not alone:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind(address)
        made.listen(BACKLOG)
    except OSError:
        made.close()
        raise
    return made


def _sentence(settings: Settings, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"Port {settings.port} of {settings.host} is in use: give another --port, or 0 for one "
            "that is free."
        )
    if error.errno == errno.EACCES:
        return f"Port {settings.port} needs rights that this user has not: give one above 1023."
    return f"The server cannot listen at {settings.host!r} ({error.strerror}): check --host."


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Loop(uvicorn.Server):
    """uvicorn, which ends when a signal has come and all requests are answered.

    Attributes:
      signal: the first that came; None if it ended without.
    """

    def __init__(self, server: Server) -> None:
        self._gate = server.gate
        self.signal: int | None = None
        self._said = False
        protocol = functools.partial(
            Connection, most=server.settings.connections, telemetry=server.telemetry
        )
        super().__init__(
            uvicorn.Config(
                server.gate,
                http=protocol,  # type: ignore[arg-type]  # it is called, and that is all
                timeout_keep_alive=IDLE_SECONDS,
                log_config=None,  # that of uvicorn closes the handlers of other libraries
                log_level="warning",
                access_log=False,
                lifespan="on",
                backlog=BACKLOG,
                server_header=False,
                ws="none",
                timeout_graceful_shutdown=5,
            )
        )

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._gate.draining:
            self.should_exit = self.force_exit = True
        self.signal = self.signal or sig
        self._gate.draining = True

    async def on_tick(self, counter: int) -> bool:
        if self._gate.draining and not self._said:
            self._said = True
            answers = counted(self._gate.inside, "request")
            print(f"stopping: {answers} to be answered first", file=sys.stderr, flush=True)
        drained = self._gate.draining and not self._gate.inside
        return await super().on_tick(counter) or drained


def serve(server: Server, opened: Listening) -> int:
    """Serves until a signal comes and its work is done; the exit code."""
    loop = Loop(server)
    # What lives as long as the server is not looked at again while a large body is read.
    gc.collect()
    gc.freeze()
    loop.run(sockets=list(opened.sockets))
    return 130 if loop.signal == signal.SIGINT else 0
