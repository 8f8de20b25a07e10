"""What the server allows."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Limits of a server, and who may use it.

    Attributes:
      host: address that it listens on.
      port: 0 takes a free one.
      keys: bearer tokens, one of which each request must have; empty: none is asked for.
      most_body: bytes of a request's body.
      seconds: for one answer, from its request to its end.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    keys: tuple[str, ...] = ()
    most_body: int = 4 << 20
    seconds: float = 600.0

    @property
    def is_loopback(self) -> bool:
        return is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address of that name. 127.evil.example is a name like
    any other."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return False
