"""The socket, the loop, and how the server ends.

The first SIGTERM or Ctrl-C lets what was accepted be answered, and refuses what is new with 503; a
second one ends at once.
"""

from __future__ import annotations

import errno
import signal
import socket
import sys
from types import FrameType

import uvicorn

from llm_jax.config import UserError
from llm_jax.config.wording import counted
from llm_jax.serve.app import Server
from llm_jax.serve.settings import Settings

BACKLOG = 512


def listen(settings: Settings) -> socket.socket:
    """The socket of the server. Clients may connect from now on, and wait until the models are
    loaded.

    Raises:
      UserError: the port is in use, or there is no such address.
    """
    host, port = settings.host.strip("[]"), settings.port
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        made = socket.socket(family, kind, proto)
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind(address)
            made.listen(BACKLOG)
        except OSError:
            made.close()
            raise
    except OSError as error:
        raise UserError(_sentence(settings, error)) from None
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


def address_of(opened: socket.socket) -> str:
    """http://HOST:PORT"""
    host, port = opened.getsockname()[:2]
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
        super().__init__(
            uvicorn.Config(
                server.gate,
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


def serve(server: Server, opened: socket.socket) -> int:
    """Serves until a signal comes and its work is done; the exit code."""
    loop = Loop(server)
    loop.run(sockets=[opened])
    return 130 if loop.signal == signal.SIGINT else 0
