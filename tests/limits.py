"""Limits of the operating system, for as long as something is tried under them."""

from __future__ import annotations

import contextlib
import resource
import signal
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """No file can grow beyond `size` bytes, as on a full disk; root is no exception.

    Not a fixture: what pytest itself writes between a fixture and its test, into a file that its
    output was sent to, would fail too, and end all tests.
    """
    before, bytecode = resource.getrlimit(resource.RLIMIT_FSIZE), sys.dont_write_bytecode
    sys.dont_write_bytecode = True  # it would be cut off, and every later import would fail
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
        sys.dont_write_bytecode = bytecode
