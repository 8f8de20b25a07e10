"""Files of an imported model that a run keeps, so that an export can give them back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llm_jax.config import read_bytes, read_json
from llm_jax.runs.files import write_bytes

FOLDER = "imported"
"""Subfolder of a run."""
CONFIG, GENERATION = "config.json", "generation_config.json"
LICENCES = ("LICENSE*", "LICENCE*", "NOTICE*", "USE_POLICY*")
SPECIAL = ("bos_token_id", "eos_token_id", "pad_token_id")


def keep(source: Path, run: Path) -> None:
    """Copies what a model's folder says beside its weights and its tokenizer into a new run."""
    for pattern in (CONFIG, GENERATION, *LICENCES):
        for path in sorted(source.glob(pattern)):
            if path.is_file():
                write_bytes(run / FOLDER / path.name, read_bytes(path))


def give_back(run: Path, out: Path) -> list[str]:
    """Copies what `keep` kept into a new Hugging Face folder, but config.json; the names."""
    paths = sorted(p for p in (run / FOLDER).glob("*") if p.is_file() and p.name != CONFIG)
    for path in paths:
        (out / path.name).write_bytes(read_bytes(path))
    return [path.name for path in paths]


def special_ids(run: Path) -> dict[str, Any]:
    """The ids in the imported config.json, where `eos_token_id` may be a list."""
    path = run / FOLDER / CONFIG
    raw = read_json(path) if path.is_file() else {}
    return {key: raw[key] for key in SPECIAL if key in raw}
