"""Curates a folder of JSON lines with llm-jax; prints what it took as JSON.

python with_llm_jax.py FOLDER OUT WORKERS RECIPE [TOKENIZER]
"""

from __future__ import annotations

import json
import re
import resource
import sys
import threading
import time
from pathlib import Path

from llm_jax.data.curate.curate import CurateSpec, curate
from llm_jax.data.curate.recipe import load_recipe
from llm_jax.data.sources import FileSource
from llm_jax.data.tokenizers import Tokenizer

PEAK = re.compile(r"VmHWM:\s+(\d+) kB")


class TaskPeak(threading.Thread):
    """The largest resident set of any child process, read from /proc all the time: `getrusage` of a
    child counts what it had of its parent before it became another program.

    Attributes:
      kilobytes: so far.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.kilobytes = 0

    def run(self) -> None:
        while True:
            for children in Path("/proc/self/task").glob("*/children"):
                for pid in children.read_text().split():
                    self._see(Path("/proc", pid))
            time.sleep(0.05)

    def _see(self, process: Path) -> None:
        try:
            if b"data.curate.task" in (process / "cmdline").read_bytes():
                found = PEAK.search((process / "status").read_text())
                self.kilobytes = max(self.kilobytes, int(found[1]) if found else 0)
        except OSError:  # it has just ended
            return


def main(folder: str, out: str, workers: str, recipe: str, tokenizer: str = "") -> None:
    peak = TaskPeak()
    peak.start()
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
                "worker_mb": peak.kilobytes / 1e3,
            }
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
