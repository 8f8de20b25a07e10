"""Calls of the command line within the test's process."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_jax.cli import main


def call(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of `llm-jax ARGV`."""
    with pytest.raises(SystemExit) as stopped:
        main([str(word) for word in argv])
    captured = capsys.readouterr()
    code = stopped.value.code
    assert isinstance(code, int)
    return code, captured.out, captured.err


def call_json(capsys: pytest.CaptureFixture[str], *argv: object) -> dict[str, Any]:
    """What `llm-jax ARGV --json`, which must succeed, prints."""
    code, out, err = call(capsys, *argv, "--json")
    assert code == 0, err
    made: dict[str, Any] = json.loads(out)
    return made
