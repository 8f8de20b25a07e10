"""Speed of curation: MB/s of each step on one core, and of a recipe on one and two.

    python benchmarks/curate.py [--input PATH …] [--megabytes N] [--datatrove PYTHON]

With `--datatrove`, the interpreter of an environment that has datatrove[processing] and spacy, the
same rules run there on the same documents, in turns with ours, and the ratio of the two is printed.
Times are CPU seconds of the process, so that what else the machine does matters less; those of
whole recipes are wall time. The first documents are not timed: models and words are loaded then.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from llm_jax.data.curate.curate import CurateSpec, curate
from llm_jax.data.curate.draft import Draft
from llm_jax.data.curate.recipe import Recipe
from llm_jax.data.curate.step import JointStep, Step
from llm_jax.data.curate.steps.c4 import C4
from llm_jax.data.curate.steps.code import Code
from llm_jax.data.curate.steps.fineweb import FineWeb
from llm_jax.data.curate.steps.gopher import GopherQuality, GopherRepetition
from llm_jax.data.curate.steps.hojichar import HojiChar
from llm_jax.data.curate.steps.near_duplicates import NearDuplicates
from llm_jax.data.curate.steps.pii import Pii
from llm_jax.data.curate.steps.repeated_paragraphs import RepeatedParagraphs
from llm_jax.data.curate.steps.swallow import Swallow
from llm_jax.data.sources import FileSource, LeftOut, Source, StdlibSource

SHARED: dict[str, Step] = {
    "gopher_repetition": GopherRepetition(),
    "gopher_quality": GopherQuality(),
    "c4": C4(terminal_punctuation=False),
    "fineweb": FineWeb(),
    "near_duplicates": NearDuplicates(),
}
"""Steps that datatrove has too."""
OURS: dict[str, Step] = {
    "code": Code(),
    "pii": Pii(kinds=("email", "ip", "card", "my_number")),
    "repeated_paragraphs": RepeatedParagraphs(),
    "hojichar": HojiChar(),
    "swallow": Swallow(),
}
CUT = 8000
"""Characters of a document."""
WARM = 20
"""Documents that are not timed."""
ROUNDS = 3
THEIRS = """
import json, sys, time
from datatrove.data import Document
from datatrove.pipeline import filters
from datatrove.pipeline.dedup.minhash import MinhashDedupSignature
from datatrove.utils.text import split_into_parts

made = {
    "gopher_repetition": filters.GopherRepetitionFilter().filter,
    "gopher_quality": filters.GopherQualityFilter().filter,
    "c4": filters.C4QualityFilter(filter_no_terminal_punct=False),
    "fineweb": filters.FineWebQualityFilter().filter,
}
made["c4"].stat_update = lambda *words, **more: None
made["c4"] = made["c4"].filter
dedup = MinhashDedupSignature(sys.argv[2])


def signature(document):
    shingles = dedup.get_shingles(document.text)
    if shingles.size:
        dedup.get_signature(shingles)


made["near_duplicates"] = signature
texts = json.load(open(sys.argv[1]))
warm = int(sys.argv[3])
for name, rule in made.items():
    for text in texts[:warm]:
        rule(Document(text=text, id=""))
for line in sys.stdin:
    split_into_parts.cache_clear()
    begin = time.process_time()
    for text in texts[warm:]:
        try:
            made[line.strip()](Document(text=text, id=""))
        except ZeroDivisionError:
            pass
    print(time.process_time() - begin, flush=True)
"""
"""datatrove remembers the words of the last documents between filters; each rule is timed alone,
and so are ours."""


def texts_of(sources: list[Source], size: int) -> list[str]:
    """Texts of at most `CUT` characters, of `size` bytes together."""
    found: list[str] = []
    for source in sources:
        for document in source.documents(LeftOut()):
            for start in range(0, len(document.text), CUT):
                found.append(document.text[start : start + CUT])
                size -= len(found[-1].encode())
                if size <= 0:
                    return found
    return found


def ours(step: Step, texts: list[str]) -> float:
    """CPU seconds of one step."""
    ready: Callable[[Draft], object]
    if isinstance(step, JointStep):
        ready = step.rows
    else:
        check = step.ready(Path()).check

        def ready(draft: Draft) -> object:
            return all(one.holds for one in check(draft))

    for text in texts[:WARM]:
        ready(Draft(text))
    begin = time.process_time()
    for text in texts[WARM:]:
        ready(Draft(text))
    return time.process_time() - begin


def compare(texts: list[str], size: float, python: str | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        theirs = None
        if python:
            file = Path(folder, "texts.json")
            file.write_text(json.dumps(texts), encoding="utf-8")
            command = [python, "-c", THEIRS, str(file), folder, str(WARM)]
            theirs = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        total = [0.0, 0.0]
        for name, step in (SHARED | OURS).items():
            mine, other = [], []
            for _ in range(ROUNDS):
                mine.append(ours(step, texts))
                if theirs and name in SHARED:
                    assert theirs.stdin is not None
                    assert theirs.stdout is not None
                    theirs.stdin.write(f"{name}\n")
                    theirs.stdin.flush()
                    other.append(float(theirs.stdout.readline()))
            line = f"{name:20} {size / min(mine):8.2f} MB/s"
            if other:
                total = [total[0] + min(mine), total[1] + min(other)]
                line += f"   datatrove {size / min(other):6.2f} MB/s   "
                line += f"ratio {min(other) / min(mine):5.2f}"
            print(line, flush=True)
        if theirs:
            theirs.kill()
            theirs.wait()
            print(f"{'all of these':20} {size / total[0]:8.2f} MB/s   datatrove "
                  f"{size / total[1]:6.2f} MB/s   ratio {total[1] / total[0]:5.2f}")  # fmt: skip


def scaling(texts: list[str], size: float) -> None:
    """Wall time of a whole curation on one core and on two, with a process on each, in turns."""
    cores = sorted(os.sched_getaffinity(0))
    recipe = Recipe(steps=tuple(step for step in SHARED.values()))  # type: ignore[misc]
    seconds: dict[int, list[float]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "texts.jsonl")
        lines = (json.dumps({"text": text}) for text in texts)
        file.write_text("\n".join(lines), encoding="utf-8")
        spec = CurateSpec(sources=(FileSource(file),), recipe=recipe)
        for turn, workers in itertools.product(range(2), seconds):
            os.sched_setaffinity(0, cores[:workers])
            begin = time.perf_counter()
            curate(spec, Path(folder, f"{turn}-{workers}"), lambda *words: None, workers=workers,
                   say=print, write_page=lambda folder, info: None)  # fmt: skip
            seconds[workers].append(time.perf_counter() - begin)
    os.sched_setaffinity(0, cores)
    one, two = (min(seconds[workers]) for workers in (1, 2))
    print(f"recipe of these steps: {size / one:.2f} MB/s on one core, {size / two:.2f} MB/s on "
          f"two, ratio {one / two:.2f}")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--input", nargs="+", type=Path, default=[], help="text to read")
    parser.add_argument("--megabytes", type=float, default=4.0, help="text to measure with")
    parser.add_argument("--datatrove", metavar="PYTHON", help="interpreter that has datatrove")
    args = parser.parse_args()
    sources: list[Source] = [FileSource(path) for path in args.input] or [StdlibSource()]
    texts = texts_of(sources, int(args.megabytes * 1e6))
    size = sum(len(text.encode()) for text in texts) / 1e6
    print(f"{len(texts):,} documents, {size:.1f} MB")
    compare(texts, size, args.datatrove)
    scaling(texts * max(1, round(32 / size)), size * max(1, round(32 / size)))


if __name__ == "__main__":
    main()
