"""One task of a curation, in a process of its own.

It reads a portion of the sources, applies the steps of a pass to a shard, or answers all rows of a
pass:

    python -m llm_jax.data.curate.task WORK read PORTION
    python -m llm_jax.data.curate.task WORK 0 SHARD PORTION PART FIRST
    python -m llm_jax.data.curate.task WORK PASS SHARD
    python -m llm_jax.data.curate.task WORK PASS resolve SHARDS
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from llm_jax.data.building.work import Work
from llm_jax.data.clean import Cleaner
from llm_jax.data.curate import shards
from llm_jax.data.curate.apply import Applied, Applier, CountTokens
from llm_jax.data.curate.draft import Draft
from llm_jax.data.curate.plan import Plan
from llm_jax.data.curate.step import JointStep
from llm_jax.data.curate.tally import Tally
from llm_jax.data.tasks.program import exit_code, load_array, save_array
from llm_jax.runs.files import write_text


def run_shard(
    plan: Plan, number: int, shard: int, documents: Path | None = None, first: int = 0
) -> None:
    """Applies the steps of pass `number` to a shard, unless that is done.

    Args:
      documents: file of the documents; None: what the pass before wrote.
      first: what is added to their numbers.
    """
    if plan.is_done(number, shard):
        return
    documents = documents or plan.shard(number - 1, shard)
    this = plan.passes[number]
    answers: _Answers | None = None
    steps: list[tuple[str, Applied]] = []
    if this.joint is not None:
        name, joint = this.joint
        answers = _Answers(plan, number - 1, shard, joint)
        steps.append((name, answers.check))
    steps += [(name, step.ready(plan.steps_folder).check) for name, step in this.steps]
    tally = Tally(plan.recipe.names())
    applier = Applier(steps, tally, _token_counter(plan))
    rows: list[np.ndarray] = []
    numbers: list[np.ndarray] = []
    with shards.written(plan.shard(number, shard)) as add:
        for draft in shards.read(documents):
            draft.number += first
            if not applier.keeps(draft, is_new=number == 0, is_last=this.follows is None):
                continue
            add(draft)
            if this.follows is not None:
                rows.append(this.follows.rows(draft))
                numbers.append(np.full(len(rows[-1]), draft.number, np.int64))
    if this.follows is not None:
        none = np.zeros((0, this.follows.columns), np.uint64)
        save_array(plan.shard(number, shard, "rows.npy"), np.concatenate([none, *rows]))
        save_array(
            plan.shard(number, shard, "numbers.npy"),
            np.concatenate([none[:, 0].astype(np.int64), *numbers]),
        )
    done = json.dumps(tally.to_dict(), ensure_ascii=False)
    write_text(plan.shard(number, shard, "tally.json"), done)
    documents.unlink(missing_ok=True)  # the disk holds one copy


def resolve(plan: Plan, number: int, count: int) -> None:
    """Writes the answers to the rows that pass `number` wrote for `count` shards."""
    joint = plan.passes[number].follows
    assert joint is not None
    tables = [load_array(plan.shard(number, shard, "rows.npy")) for shard in range(count)]
    numbers = [load_array(plan.shard(number, shard, "numbers.npy")) for shard in range(count)]
    every = np.concatenate([np.zeros(0, np.int64), *numbers])
    answers = joint.resolve(tables, every) if len(every) else np.zeros((0, 2), np.int64)
    ends = np.cumsum([len(one) for one in numbers])
    for shard, (end, own) in enumerate(zip(ends, numbers, strict=True)):
        save_array(plan.shard(number, shard, "answers.npy"), answers[end - len(own) : end])
    write_text(plan.resolved(number), "")


class _Answers:
    """A joint step with the answers to the rows of one shard."""

    def __init__(self, plan: Plan, number: int, shard: int, joint: JointStep) -> None:
        self._numbers = load_array(plan.shard(number, shard, "numbers.npy"))
        self._answers = load_array(plan.shard(number, shard, "answers.npy"))
        self._joint = joint

    def check(self, draft: Draft) -> Iterator:
        first, last = np.searchsorted(self._numbers, [draft.number, draft.number + 1])
        return self._joint.check_answers(draft, self._answers[first:last])


def _token_counter(plan: Plan) -> CountTokens | None:
    if not plan.tokenizer.is_dir():
        return None
    from llm_jax.data.tokenizers import Tokenizer

    tokenizer = Tokenizer.load(plan.tokenizer)
    return lambda text: len(tokenizer.encode_documents([text])[0])


def main(argv: list[str]) -> int:
    plan = Plan.open(Path(argv[0]))
    if argv[1] == "read":
        return _read(Work.open(plan.sources), int(argv[2]))
    number = int(argv[1])
    if argv[2] == "resolve":
        count = int(argv[3])
        return exit_code(lambda: resolve(plan, number, count), lambda: False)
    shard, more = int(argv[2]), list(map(int, argv[3:]))
    return exit_code(
        lambda: run_shard(plan, number, shard, *_place(plan, *more)),
        lambda: plan.is_done(number, shard),
    )


def _place(plan: Plan, portion: int = -1, part: int = 0, first: int = 0) -> tuple[Path | None, int]:
    """The file of a shard of the sources, and the number of the first document of its portion."""
    if portion < 0:
        return None, 0
    suffix = shards.part_suffix(part)
    return Work(plan.sources, Cleaner()).path("read", portion, suffix), first


def _read(work: Work, portion: int) -> int:
    from llm_jax.data.curate.reading import read_portion  # loads what reads the formats

    def run() -> None:
        work.enter()
        read_portion(work, portion)

    return exit_code(run, lambda: work.is_done("read", portion))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
