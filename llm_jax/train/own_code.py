"""The code that a run's config names: kept in the run's folder, and a change of it is said."""

from __future__ import annotations

import hashlib
from pathlib import Path

import jax

from llm_jax.config import RunConfig
from llm_jax.config.extensions import code_file, own_code
from llm_jax.runs.files import write_bytes

FOLDER = "code"


def keep_code(config: RunConfig) -> list[str]:
    """Copies the files that `config` names to `<out>/code`; returns a sentence for each part.

    Process 0 alone writes.
    """
    said = []
    for where, name in own_code(config).items():
        file = code_file(name)
        if file is None:
            said.append(f"{where} is {name}, an installed module.")
            continue
        content, kept = file.read_bytes(), Path(config.out) / FOLDER / file.name
        short = hashlib.sha256(content).hexdigest()[:12]
        changed = kept.is_file() and kept.read_bytes() != content
        said.append(
            f"{where} is {name} (SHA-256 {short}), kept in {kept}"
            + (": another version than before." if changed else ".")
        )
        if jax.process_index() == 0 and (changed or not kept.exists()):
            kept.parent.mkdir(exist_ok=True)
            write_bytes(kept, content)
    return said
