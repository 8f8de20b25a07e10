"""Speed of `data build` on one core and on two: MB/s, tokens/s, and what is not done in tasks.

    python benchmarks/build.py [--input PATH …] [--megabytes N] [--files N] [--rounds N]

The text (default: the standard library) is cut into documents of 8,000 characters, each made
different from all others by its number, in files of JSON lines; the tokenizer is made beforehand.
One core builds in one process, two in a task on each. They run in turns, each in a process of its
own, and the fastest round counts. CPU seconds matter less for what else the machine does: those of
the joining process show what more cores would not make faster.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from llm_jax.data.build import BuildSpec, build
from llm_jax.data.sources import FileSource, LeftOut, Source, StdlibSource
from llm_jax.data.tokenizers import Tokenizer
from llm_jax.data.tokenizers.training import train

CUT = 8000
"""Characters of a document."""
SAMPLE = 500
"""Documents that the tokenizer is made from."""


def texts_of(sources: list[Source]) -> list[str]:
    return [
        document.text[start : start + CUT]
        for source in sources
        for document in source.documents(LeftOut())
        for start in range(0, len(document.text), CUT)
    ]


def write(texts: list[str], folder: Path, size: int, files: int) -> float:
    """Writes documents of `size` bytes in all into so many files; returns their megabytes."""
    folder.mkdir()
    number = total = 0
    for file in range(files):
        with (folder / f"{file:03}.jsonl").open("w", encoding="utf-8") as lines:
            while total < size * (file + 1) / files:
                text = f"{number}\n{texts[number % len(texts)]}"
                lines.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
                total += len(text.encode())
                number += 1
    return total / 1e6


def measure(folder: Path, tokenizer: Path, out: Path, workers: int) -> None:
    """Builds, and prints the seconds as JSON."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:workers])
    spec = BuildSpec(sources=(FileSource(folder),), tokenizer=Tokenizer.load(tokenizer))
    import llm_jax.data.token_records  # noqa: F401  (importing tfds takes over a second)

    before, begin = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    info, _ = build(spec, out, lambda phase, done, total: None, workers=workers)
    seconds = time.perf_counter() - begin
    here, tasks = (resource.getrusage(which) for which in (resource.RUSAGE_SELF,
                                                           resource.RUSAGE_CHILDREN))  # fmt: skip
    print(json.dumps({
        "wall": seconds,
        "here": here.ru_utime + here.ru_stime - before.ru_utime - before.ru_stime,
        "tasks": tasks.ru_utime + tasks.ru_stime,
        "tokens": info["tokens"],
        "memory": here.ru_maxrss / 1024,
    }))  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--input", nargs="+", type=Path, default=[], help="text to read")
    parser.add_argument("--megabytes", type=float, default=96.0, help="text to build from")
    parser.add_argument("--files", type=int, default=6, help="files that it is in")
    parser.add_argument("--rounds", type=int, default=2, help="builds on each number of cores")
    parser.add_argument("--measure", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        folder, tokenizer, out, workers = args.measure
        measure(Path(folder), Path(tokenizer), Path(out), int(workers))
        return
    sources: list[Source] = [FileSource(path) for path in args.input] or [StdlibSource()]
    with tempfile.TemporaryDirectory() as scratch:
        texts = texts_of(sources)
        size = write(texts, Path(scratch, "in"), int(args.megabytes * 1e6), args.files)
        train(texts[:: max(1, len(texts) // SAMPLE)], vocab_size=8192).save(Path(scratch))
        print(f"{size:.1f} MB in {args.files} files")
        best: dict[int, dict[str, float]] = {}
        for turn in range(args.rounds):
            for workers in (1, 2):
                words = [Path(scratch, "in"), Path(scratch), Path(scratch, f"{turn}-{workers}")]
                command = [sys.executable, __file__, "--measure", *map(str, words), str(workers)]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                made = json.loads(done.stdout)
                if workers not in best or made["wall"] < best[workers]["wall"]:
                    best[workers] = made
    for workers, made in best.items():
        print(
            f"{workers} core{'s' if workers > 1 else ' '}  {size / made['wall']:6.2f} MB/s  "
            f"{made['tokens'] / made['wall']:12,.0f} tokens/s  wall {made['wall']:6.1f} s  "
            f"CPU here {made['here']:6.1f} s, in tasks {made['tasks']:6.1f} s  "
            f"memory here {made['memory']:5.0f} MB"
        )
    one, two = best[1], best[2]
    print(f"ratio    {one['wall'] / two['wall']:6.2f}")
    print(f"not in tasks: {two['here'] / (two['here'] + two['tasks']):.1%} of the CPU seconds")


if __name__ == "__main__":
    main()
