"""Reads, tokenises and filters a folder of JSON lines with the libraries datasets and tokenizers,
by llm-jax's own rules; prints what it took as JSON.

    python with_datasets.py FOLDER OUT WORKERS RECIPE TOKENIZER
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes are the parallelism
os.environ["HF_HUB_OFFLINE"] = "1"


@cache
def tokenizer(path: str) -> Any:
    from tokenizers import Tokenizer

    return Tokenizer.from_file(path)


def main(folder: str, out: str, workers: str, recipe: str, tokens: str) -> None:
    import datasets

    from llm_jax.data.curate.draft import Draft
    from llm_jax.data.curate.recipe import load_recipe

    datasets.disable_progress_bars()
    steps = load_recipe(recipe).steps

    def judge(row: dict[str, str]) -> dict[str, Any]:
        draft = Draft(row["text"])
        kept = all(all(check.holds for check in step.check(draft)) for step in steps)
        return {"text": draft.text, "kept": kept}

    def count(rows: dict[str, list[str]]) -> dict[str, list[int]]:
        encoded = tokenizer(tokens).encode_batch(rows["text"], add_special_tokens=False)
        return {"tokens": [len(one.ids) for one in encoded]}

    begin = time.perf_counter()
    processes = int(workers) if workers != "1" else None
    files = sorted(map(str, Path(folder).glob("*.jsonl")))
    rows = datasets.load_dataset(
        "json", data_files=files, split="train", cache_dir=f"{out}/cache", num_proc=processes
    )
    rows = rows.map(count, batched=True, num_proc=processes)
    rows = rows.map(judge, num_proc=processes)
    rows = rows.filter(lambda kept: kept, input_columns="kept", num_proc=processes)
    rows.to_json(f"{out}/kept.jsonl.gz", compression="gzip", num_proc=processes)
    seconds = time.perf_counter() - begin
    own, others = (
        resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    print(
        json.dumps(
            {
                "seconds": seconds,
                "kept": len(rows),
                "tokens": sum(rows["tokens"]),
                "parent_cpu": own.ru_utime + own.ru_stime,
                "worker_cpu": others.ru_utime + others.ru_stime,
            }
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
