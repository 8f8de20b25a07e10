"""Documents, a recipe of two passes and a joint step, and what runs them cut into many shards."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

RECIPE = {"steps": [{"kind": "gopher_repetition"}, {"kind": "near_duplicates"}]}
PROGRAM = """
import sys
from llm_jax.data import streams
from llm_jax.data.building import cut
from llm_jax.data.curate import shards
size = shards.SHARD_BYTES = cut.SHARD_BYTES = int(sys.argv[1])
streams.SHARD_BYTES = size, 2 * size
from llm_jax.cli import main
main(sys.argv[2:])
"""
"""`llm-jax` with shards of so many bytes as its first word says."""


def write_corpus(folder: Path) -> Path:
    """119 texts in JSON lines, 20 of them twice, with a recipe beside them."""
    text = folder / "texts.jsonl"
    draw = random.Random(0)
    rows = [{"text": " ".join(word(draw) for _ in range(90))} for _ in range(99)]
    text.write_text("\n".join(map(json.dumps, rows + rows[:20])), encoding="utf-8")
    Path(f"{text}.json").write_text(json.dumps(RECIPE), encoding="utf-8")
    return text


def word(draw: random.Random) -> str:
    return "".join(chr(97 + int(26 * draw.random())) for _ in range(6))


def content(folder: Path) -> dict[str, bytes]:
    """Name of each file below `folder` → its bytes."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(files)}


def curate(text: Path, out: Path, *more: object) -> list[object]:
    recipe = f"{text}.json"
    return ["data", "curate", "--input", text, "--recipe", recipe, "--out", out, "--json", *more]


def build(text: Path, out: Path, *more: object) -> list[object]:
    return ["data", "build", "--input", text, "--vocab-size", 300, "--out", out, "--json", *more]


def started(argv: Iterable[object], size: int = 10_000) -> subprocess.Popen[str]:
    """`llm-jax ARGV` with shards of `size` bytes."""
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(size), *map(str, argv)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def made_here(words: list[object], out: Path, size: int) -> dict[str, bytes]:
    """What `llm-jax WORDS` writes into `out` with two processes of this machine."""
    program = [sys.executable, "-c", PROGRAM, size, *words, "--workers", 2]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run(list(map(str, program)), check=True, capture_output=True, env=environment)
    return content(out)


def curated_here(text: Path, out: Path, size: int) -> dict[str, bytes]:
    return made_here(curate(text, out), out, size)
