"""Scores of one version of each task: those of others answer different questions."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from llm_jax.runs.scores import Scores, version_in_words


def of_one_version(
    models: Sequence[str], scored: Sequence[Sequence[Scores]], tasks: Sequence[str]
) -> tuple[list[list[Scores]], dict[str, str | None], list[str]]:
    """The scores of the newest version of each task; scores of other versions are left out.

    Args:
      models: names of what was scored.
      scored: of each model, its scores.

    Returns:
      Of each model the scores that are left; the version of each task, None where none is known;
      and what is left out or not known, in sentences.
    """
    versions, notes = dict[str, str | None](), list[str]()
    for task in tasks:
        held = Counter(one.version for each in scored for one in each if one.task == task)
        newest = max(held.items(), key=lambda pair: (_order(pair[0]), pair[1]))[0]
        versions[task] = newest
        for version in sorted(held.keys() - {newest}, key=str):
            names = [
                name
                for name, each in zip(models, scored, strict=True)
                if any(one.task == task and one.version == version for one in each)
            ]
            notes.append(
                f"{task}: scores of {version_in_words(version)} of the task are left out "
                f"({', '.join(names)}), since others are of {version_in_words(newest)}: "
                f"--tasks {task} scores again."
            )
    if unknown := [task for task, version in versions.items() if version is None]:
        notes.append(
            f"The version of {', '.join(unknown)} is not known: if the questions changed between "
            "two scores, this page cannot tell."
        )
    kept = [[o for o in each if o.version == versions.get(o.task)] for each in scored]
    return kept, versions, notes


def _order(version: str | None) -> tuple[int, ...]:
    """Later versions are larger. The digest of a group has no order."""
    if version is None or not version[:1].isdigit():
        return ()
    return tuple(map(int, re.findall(r"\d+", version)))
