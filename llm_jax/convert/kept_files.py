"""Files of an imported model that a run keeps, so that an export can give them back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llm_jax.config import read_bytes, read_json
from llm_jax.convert.families import further
from llm_jax.data.tokenizers import Tokenizer
from llm_jax.runs.files import write_bytes
from llm_jax.runs.imported import FOLDER

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
    raw = _object(run / FOLDER / CONFIG)
    return {key: raw[key] for key in SPECIAL if key in raw}


def further_layers(run: Path) -> list[str]:
    """A sentence about layers that predict further tokens, which the import left out, if any."""
    said = further.left_out(_object(run / FOLDER / CONFIG))
    return [said] if said else []


def vocabulary(run: Path) -> int:
    """Rows of the embedding that was imported; 0 for a run that was not."""
    rows = _object(run / FOLDER / CONFIG).get("vocab_size")
    return rows if type(rows) is int else 0


def stop_ids(folder: Path, tokenizer: Tokenizer) -> tuple[int, ...]:
    """Ids that end a generated text: the tokenizer's, and those that transformers would take from
    generation_config.json, or else config.json, of an imported run or of a Hugging Face folder."""
    kept = folder / FOLDER if (folder / FOLDER).is_dir() else folder
    said = [_object(kept / name).get("eos_token_id") for name in (GENERATION, CONFIG)]
    theirs: Any = next((one for one in said if one is not None), [])
    ids = theirs if isinstance(theirs, list) else [theirs]
    known = [i for i in ids if type(i) is int and 0 <= i < tokenizer.vocab_size]
    return tuple(dict.fromkeys((tokenizer.eos_id, *known)))


def _object(path: Path) -> dict[str, Any]:
    """The JSON object in `path`; an empty one if there is none."""
    raw = read_json(path) if path.is_file() else {}
    return raw if isinstance(raw, dict) else {}
