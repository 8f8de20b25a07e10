"""`llm-jax plan` as a person asks it: what it answers, and what it refuses."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_jax.cli import main

Capture = pytest.CaptureFixture[str]


def ask(capsys: Capture, *words: str) -> dict[str, Any]:
    """The JSON object of a plan."""
    with pytest.raises(SystemExit) as end:
        main(["plan", *words, "--json"])
    said = capsys.readouterr()
    assert end.value.code == 0, said.err
    return json.loads(said.out)


def told(capsys: Capture, *words: str) -> str:
    """The text of a plan."""
    with pytest.raises(SystemExit) as end:
        main(["plan", *words])
    said = capsys.readouterr()
    assert end.value.code == 0, said.err
    return said.out


def refusal(capsys: Capture, *words: str) -> str:
    """The sentence with which a plan is refused."""
    with pytest.raises(SystemExit) as end:
        main(["plan", *words])
    assert end.value.code == 2
    return capsys.readouterr().err
