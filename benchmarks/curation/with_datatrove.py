"""Reads, tokenises and filters a folder of JSON lines with datatrove; prints what it took as JSON.

python with_datatrove.py FOLDER OUT WORKERS - TOKENIZER
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["LOGURU_LEVEL"] = "WARNING"


def main(folder: str, out: str, workers: str, _: str, tokenizer: str) -> None:
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline import filters
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.tokens import TokensCounter
    from datatrove.pipeline.writers import JsonlWriter

    begin = time.perf_counter()
    LocalPipelineExecutor(
        pipeline=[
            JsonlReader(folder),
            TokensCounter(tokenizer),
            filters.GopherQualityFilter(),
            filters.GopherRepetitionFilter(),
            filters.C4QualityFilter(filter_no_terminal_punct=False),
            filters.FineWebQualityFilter(),
            JsonlWriter(f"{out}/kept"),
        ],
        tasks=len(list(Path(folder).glob("*.jsonl"))),
        workers=int(workers),
        logging_dir=f"{out}/logs",
    ).run()
    seconds = time.perf_counter() - begin
    stats = json.loads(Path(out, "logs/stats.json").read_text(encoding="utf-8"))
    counted = next(one for one in stats if "Counter" in one["name"])["stats"]
    written = next(one for one in stats if "WRITER" in one["name"])["stats"]
    own, others = (
        resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    print(
        json.dumps(
            {
                "seconds": seconds,
                "kept": written["total"],
                "tokens": counted["tokens"]["total"],
                "parent_cpu": own.ru_utime + own.ru_stime,
                "worker_cpu": others.ru_utime + others.ru_stime,
            }
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
