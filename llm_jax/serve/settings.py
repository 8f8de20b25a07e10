"""What the server allows."""

from __future__ import annotations

import ipaddress
import resource
from dataclasses import dataclass

SPARE = 128
"""Connections beside those of texts; and files that are no connections."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Limits of a server, and who may use it.

    Attributes:
      host: address that it listens on.
      port: 0 takes a free one.
      keys: bearer tokens, one of which each request must have; empty: none is asked for.
      most_body: bytes of a request's body.
      seconds: for one answer, from its request to its end.
      connections: that may be open at once.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    keys: tuple[str, ...] = ()
    most_body: int = 4 << 20
    seconds: float = 600.0
    connections: int = 1024

    @property
    def is_loopback(self) -> bool:
        return is_loopback(self.host)


def most_connections(texts: int) -> int:
    """One for each text that the server takes, and `SPARE` for what is refused, as far as the
    process may open files."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    room = max(1, files - SPARE) if files != resource.RLIM_INFINITY else texts + SPARE
    return min(texts + SPARE, room)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address of that name. 127.evil.example is a name like
    any other."""
    host = host.lower().removeprefix("[").removesuffix("]")
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback
