"""The Python of a node, for scripts."""

from __future__ import annotations

import sys

from llm_jax.launch.forms import shell_word


def python_lines(setup: str) -> list[str]:
    """Lines that set `$python`: after `setup` the one on the path, without it the one of here."""
    if not setup:
        return [f"python={shell_word(sys.executable)}"]
    # As one word, so that an open quote in it cannot take in what follows.
    return [f"eval {shell_word(setup)}", "python=python3"]
