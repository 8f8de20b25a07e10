"""Curates a folder of JSON lines with llm-jax; prints what it took as JSON.

python with_llm_jax.py FOLDER OUT WORKERS RECIPE [TOKENIZER]
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

from llm_jax.data.curate.curate import CurateSpec, curate
from llm_jax.data.curate.recipe import load_recipe
from llm_jax.data.sources import FileSource
from llm_jax.data.tokenizers import Tokenizer


def main(folder: str, out: str, workers: str, recipe: str, tokenizer: str = "") -> None:
    begin = time.perf_counter()
    spec = CurateSpec(
        sources=(FileSource(Path(folder)),),
        recipe=load_recipe(recipe),
        tokenizer=Tokenizer.load(tokenizer) if tokenizer else None,
    )
    info, _ = curate(
        spec, Path(out), lambda *words: None, workers=int(workers), say=print,
        write_page=lambda folder, info: None,
    )  # fmt: skip
    own, others = (
        resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    print(
        json.dumps(
            {
                "seconds": time.perf_counter() - begin,
                "kept": info["documents"]["out"],
                "tokens": (info["tokens"] or {}).get("out"),
                "parent_cpu": own.ru_utime + own.ru_stime,
                "parent_mb": own.ru_maxrss / 1e3,
                "worker_cpu": others.ru_utime + others.ru_stime,
                "worker_mb": others.ru_maxrss / 1e3,
            }
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
