"""The folder in which a curation works, and the passes of its recipe over the shards.

<work>/plan.json                    recipe, sources, names of the steps
<work>/steps/                       what steps have prepared
<work>/counts_with/                 the tokenizer, if tokens are counted
<work>/sources/read/NNNNN.*         a portion of the sources, as in `building/work.py`
<work>/sources/read/NNNNN.PPPPP.jsonl.zst   its documents, gone once pass 0 has read them
<work>/pass-P/NNNNN.jsonl.zst       documents that pass P kept
<work>/pass-P/NNNNN.rows.npy        their rows for the joint step that begins pass P + 1
<work>/pass-P/NNNNN.numbers.npy     the document of each row
<work>/pass-P/NNNNN.answers.npy     the answers to the rows
<work>/pass-P/NNNNN.tally.json      what the steps did: written last, so the shard is done
<work>/pass-P/resolved              the answers are there
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from llm_jax.config import from_dict, to_dict
from llm_jax.data.curate.recipe import Recipe
from llm_jax.data.curate.step import JointStep, Step
from llm_jax.runs.files import write_text

PLAN_FILE = "plan.json"
TOKENIZER = "counts_with"
Named = tuple[str, Step]


@dataclass(frozen=True)
class Pass:
    """Steps that are applied to a shard at once.

    Attributes:
      joint: the joint step that the pass begins with, whose answers are there; None in pass 0.
      steps: the steps on single documents that follow.
      follows: the joint step that the next pass begins with; None in the last pass.
    """

    joint: tuple[str, JointStep] | None
    steps: tuple[Named, ...]
    follows: JointStep | None


@dataclass(frozen=True)
class Plan:
    """A recipe over a work folder."""

    folder: Path
    recipe: Recipe

    @classmethod
    def open(cls, folder: Path) -> Plan:
        raw = json.loads((folder / PLAN_FILE).read_text(encoding="utf-8"))
        return cls(folder, from_dict(raw["recipe"], Recipe))

    def write(self) -> None:
        recipe = {"recipe": to_dict(self.recipe)}
        write_text(self.folder / PLAN_FILE, json.dumps(recipe, indent=1, ensure_ascii=False))

    @cached_property
    def passes(self) -> list[Pass]:
        """The recipe's steps, cut before each joint step."""
        groups: list[tuple[tuple[str, JointStep] | None, list[Named]]] = [(None, [])]
        for name, step in zip(self.recipe.names(), self.recipe.steps, strict=True):
            if isinstance(step, JointStep):
                groups.append(((name, step), []))
            else:
                groups[-1][1].append((name, step))
        joints = [joint for joint, _ in groups]
        following = [joint[1] if joint else None for joint in [*joints[1:], None]]
        return [
            Pass(joint, tuple(steps), follows)
            for (joint, steps), follows in zip(groups, following, strict=True)
        ]

    @property
    def steps_folder(self) -> Path:
        return self.folder / "steps"

    @property
    def sources(self) -> Path:
        return self.folder / "sources"

    @property
    def tokenizer(self) -> Path:
        return self.folder / TOKENIZER

    def shard(self, number: int, shard: int, suffix: str = "jsonl.zst") -> Path:
        """A file of a shard in pass `number`."""
        return self.folder / f"pass-{number}" / f"{shard:05d}.{suffix}"

    def is_done(self, number: int, shard: int) -> bool:
        return self.shard(number, shard, "tally.json").is_file()

    def outputs(self) -> list[Path]:
        """The folder of each pass."""
        return [self.folder / f"pass-{number}" for number in range(len(self.passes))]

    def resolved(self, number: int) -> Path:
        """A file that is there once the rows of pass `number` have their answers."""
        return self.folder / f"pass-{number}" / "resolved"

    def tallies(self, shards: Iterable[int]) -> Iterable[dict[str, Any]]:
        """What the steps did in every pass, shard by shard."""
        for number in range(len(self.passes)):
            for shard in shards:
                path = self.shard(number, shard, "tally.json")
                yield json.loads(path.read_text(encoding="utf-8"))
