"""`--json` prints what a reader can read, in any locale, and never a number that is none."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from foreign import foreign_tokenizer

from llm_jax.commands.json_line import json_line

RESULT = {"text": "猫 é 😀", "list": [1, "吾輩"], "none": None}


@pytest.mark.parametrize("encoding", ["utf-8", "cp932", "ascii", "latin-1", None])
def test_text_is_readable_where_it_can_be_and_always_the_same(encoding: str | None) -> None:
    line = json_line(RESULT, encoding)
    assert json.loads(line) == RESULT
    assert ("猫" in line) == (encoding == "utf-8")
    line.encode(encoding or "ascii")
    assert ("猫" in json_line({"text": "猫"}, encoding)) == (encoding in ("utf-8", "cp932"))


def test_half_a_character_is_escaped() -> None:
    assert json.loads(json_line({"text": "a\ud83d"}, "utf-8")) == {"text": "a\ud83d"}


def test_what_is_no_number_is_null() -> None:
    line = json_line(
        {"a": math.nan, "b": [math.inf, -math.inf, 1.5], "c": ({"d": math.nan},)}, None
    )
    assert json.loads(line) == {"a": None, "b": [None, None, 1.5], "c": [{"d": None}]}


@pytest.mark.parametrize("locale", [{"LC_ALL": "C"}, {"PYTHONIOENCODING": "ascii"}, {}])
def test_a_program_prints_its_text_in_any_locale(locale: dict[str, str], tmp_path: Path) -> None:
    model = tmp_path / "tokenizer.model"
    model.write_bytes(foreign_tokenizer().content)
    words = ["tokenizer", "encode", "--tokenizer", str(model), "a cat", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "llm_jax", *words],
        capture_output=True,
        check=True,
        env={**os.environ, **locale},
    )
    assert "▁" in "".join(json.loads(done.stdout.decode())["pieces"])
    assert done.stdout.isascii() == ("PYTHONIOENCODING" in locale)
