"""Every plan in the planner's guide runs as it is written."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from asking import Capture, told

GUIDE = Path(__file__).parents[2] / "docs" / "planner.md"
FILES_OF_OTHERS = ("law.json", "--calibrate")
"""In commands that need runs or laws that the guide makes before."""
PLANS = sorted(
    {
        found.strip()
        for found in re.findall(r"llm-jax plan( -[^`#|\n]*)", GUIDE.read_text("utf-8"))
        if not any(words in found for words in FILES_OF_OTHERS)
    }
)


@pytest.mark.slow
@pytest.mark.parametrize("flags", PLANS)
def test_the_guides_plans_run(
    flags: str, capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(told(capsys, *shlex.split(flags))) > 200
    named = re.findall(r"--(?:write|report) (\S+)", flags)
    assert all((tmp_path / name).stat().st_size > 1000 for name in named)


def test_the_guide_has_plans() -> None:
    assert len(PLANS) >= 18
