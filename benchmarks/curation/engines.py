"""The same work by three engines, on one core and on two: read, count tokens, rules, write."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curation.corpus import made_documents, write_files
from llm_jax.config import to_dict
from llm_jax.data.curate.recipe import Recipe
from llm_jax.data.curate.steps.c4 import C4
from llm_jax.data.curate.steps.fineweb import FineWeb
from llm_jax.data.curate.steps.gopher import GopherQuality, GopherRepetition
from llm_jax.data.curate.steps.near_duplicates import NearDuplicates

RULES = Recipe(
    steps=(GopherQuality(), GopherRepetition(), C4(terminal_punctuation=False), FineWeb())
)
"""What all three have."""
HERE = Path(__file__).parent
VOCABULARY = 8000
ROUNDS = 2
AIM, TWO_CORES_AIM = 1.0, 1.8


@dataclass(frozen=True)
class Engine:
    """A program of this folder, its recipe, and how much of the text it reads.

    Attributes:
      rounds: how often it runs; the fastest counts.
    """

    name: str
    program: str
    recipe: Recipe = RULES
    share: float = 1.0
    rounds: int = ROUNDS


OURS = Engine("llm-jax", "with_llm_jax.py")
OURS_TOO = (
    Engine(
        "llm-jax with near_duplicates", OURS.program, Recipe(steps=(*RULES.steps, NearDuplicates()))
    ),
    Engine("llm-jax, only cleaned", OURS.program, Recipe()),
)
OTHERS = (
    Engine("datasets", "with_datasets.py"),
    Engine("datatrove", "with_datatrove.py", share=1 / 8, rounds=1),
)
"""datatrove takes ten times as long for the rules."""


def compare(paragraphs: list[str], megabytes: float, python: str | None) -> None:
    """Prints MB/s of each engine on one core and on two, and the ratios.

    Args:
      python: interpreter of an environment with datatrove[processing], spacy, datasets, and what
        llm-jax needs; None: only llm-jax is measured.
    """
    engines = (OURS, *OURS_TOO, *(OTHERS if python else ()))
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        tokenizer = train_tokenizer(paragraphs, work / "tokenizer")
        texts = {}
        for share in {engine.share for engine in engines}:
            documents = made_documents(paragraphs, int(megabytes * share * 1e6))
            folder = work / f"text-{share}"
            texts[share] = folder, write_files(folder, documents)
        best: dict[tuple[str, int], float] = {}
        by_cpu: dict[tuple[str, int], float] = {}
        for turn in range(ROUNDS):
            for engine in engines:
                if turn >= engine.rounds:
                    continue
                recipe = work / "recipe.json"
                recipe.write_text(json.dumps(to_dict(engine.recipe)), encoding="utf-8")
                folder, size = texts[engine.share]
                for cores in (1, 2):
                    own = engine.program == OURS.program or python is None
                    took = started(
                        sys.executable if own else str(python),
                        engine.program,
                        [folder, work / f"{engine.name}-{cores}-{turn}", cores, recipe, tokenizer],
                        cores,
                    )
                    report(engine.name, cores, size, took)
                    cpu = took["parent_cpu"] + took["worker_cpu"]
                    for held, seconds in ((best, took["seconds"]), (by_cpu, cpu)):
                        speed = max(held.get((engine.name, cores), 0.0), size / seconds)
                        held[engine.name, cores] = speed
        names = [engine.name for engine in engines]
        ratios(best, names)
        print(
            "by CPU seconds, which what else the machine does changes less (datatrove's processes"
        )
        print("on two cores are not counted):")
        ratios(by_cpu, names)


def report(name: str, cores: int, size: float, took: Mapping[str, Any]) -> None:
    cpu = took["parent_cpu"] + took["worker_cpu"]
    print(
        f"{name:28} {cores} core{'s' * (cores > 1):1} {size / took['seconds']:6.2f} MB/s   "
        f"{took['seconds']:6.1f} s of {size:.1f} MB   CPU {took['parent_cpu']:5.1f} s parent, "
        f"{took['worker_cpu']:6.1f} s workers, {size / cpu:.2f} MB/s of them   "
        f"kept {took['kept']:,}, {took['tokens']:,} tokens",
        flush=True,
    )


def ratios(best: Mapping[tuple[str, int], float], names: list[str]) -> None:
    for other in OTHERS:
        for cores in (1, 2):
            if (other.name, cores) in best:
                ratio = best[OURS.name, cores] / best[other.name, cores]
                where = f"{cores} core{'s' * (cores > 1)}"
                print(f"llm-jax / {other.name}, {where}: {ratio:.2f} (aim {AIM})")
    for name in names:
        print(f"{name}, two cores / one: {best[name, 2] / best[name, 1]:.2f} (aim {TWO_CORES_AIM})")


def started(python: str, program: str, words: list[Any], cores: int) -> dict[str, Any]:
    """What a program of this folder printed, run on the first `cores` cores."""
    everywhere = os.sched_getaffinity(0)
    root = str(HERE.parent.parent)
    try:
        os.sched_setaffinity(0, sorted(everywhere)[:cores])
        done = subprocess.run(
            [python, str(HERE / program), *map(str, words)],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            env=os.environ | {"PYTHONPATH": root, "OMP_NUM_THREADS": "1"},
        )
    finally:
        os.sched_setaffinity(0, everywhere)
    return json.loads(done.stdout.splitlines()[-1])


def train_tokenizer(texts: list[str], folder: Path) -> Path:
    """A byte-level tokenizer.json in `folder`, of `VOCABULARY` tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    library = Tokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    library.train_from_iterator(texts, trainer)
    folder.mkdir()
    library.save(str(folder / "tokenizer.json"))
    roles = {"eos_token": "</s>"}
    (folder / "special_tokens_map.json").write_text(json.dumps(roles), encoding="utf-8")
    return folder / "tokenizer.json"
