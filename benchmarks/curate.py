"""Speed of curation: MB/s of each step, and of the whole on one core and on two, beside others'.

    python benchmarks/curate.py [--input PATH …] [--megabytes N] [--others PYTHON]
    python benchmarks/curate.py --memory

With `--others`, the interpreter of an environment that has datatrove[processing], spacy, datasets,
numpy, scipy, zstandard and sentencepiece, the same rules run there on the same documents, in turns
with ours. Steps are timed in CPU seconds of the process, so that what else the machine does matters
less; the whole (read, rules, tokens, write) in wall time, with the CPU seconds of the parent and of
its processes beside it. The first documents are not timed: models and words are loaded then.
`--memory` measures the peak memory for 1, 4 and 16 times a corpus instead.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from curation import corpus, engines, memory

from llm_jax.data.curate.draft import Draft
from llm_jax.data.curate.step import JointStep, Step
from llm_jax.data.curate.steps.c4 import C4
from llm_jax.data.curate.steps.code import Code
from llm_jax.data.curate.steps.fineweb import FineWeb
from llm_jax.data.curate.steps.gopher import GopherQuality, GopherRepetition
from llm_jax.data.curate.steps.hojichar import HojiChar
from llm_jax.data.curate.steps.hojichar_words import HojiCharWords
from llm_jax.data.curate.steps.near_duplicates import NearDuplicates
from llm_jax.data.curate.steps.pii import Pii
from llm_jax.data.curate.steps.repeated_paragraphs import RepeatedParagraphs
from llm_jax.data.curate.steps.swallow import Swallow

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
    "pii": Pii(kinds=("email", "ip", "card", "my_number", "phone", "address")),
    "repeated_paragraphs": RepeatedParagraphs(),
    "hojichar": HojiChar(),
    "hojichar_words": HojiCharWords(),
    "swallow": Swallow(),
}
SHORT = 50_000
"""Short documents for the index of near-duplicates."""
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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--input", nargs="+", type=Path, default=[], help="text to read")
    parser.add_argument("--megabytes", type=float, default=4.0, help="text to measure steps with")
    parser.add_argument("--whole", type=float, default=64.0, help="megabytes for the whole")
    parser.add_argument("--others", metavar="PYTHON", help="interpreter with the other libraries")
    parser.add_argument("--memory", action="store_true", help="measure the peak memory instead")
    args = parser.parse_args()
    paragraphs = corpus.paragraphs_of(args.input, int(args.megabytes * 1e6))
    if args.memory:
        memory.compare(paragraphs, args.megabytes, SHORT)
        return
    texts = list(corpus.made_documents(paragraphs, int(args.megabytes * 1e6)))
    size = sum(len(text.encode()) for text in texts) / 1e6
    print(f"{len(texts):,} documents, {size:.1f} MB")
    compare(texts, size, args.others)
    engines.compare(paragraphs, args.whole, args.others)


if __name__ == "__main__":
    main()
