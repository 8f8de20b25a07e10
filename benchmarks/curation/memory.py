"""Peak memory of a curation for 1, 4 and 16 times a corpus."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from curation.corpus import made_documents, short_documents, write_files
from curation.engines import RULES, started
from llm_jax.config import to_dict
from llm_jax.data.curate.recipe import Recipe
from llm_jax.data.curate.steps.near_duplicates import NearDuplicates

TIMES = (1, 4, 16)
WORKERS = 2


def compare(paragraphs: list[str], megabytes: float, documents: int) -> None:
    """Prints the peak of the parent and of its largest task.

    Args:
      megabytes: of text for the rules, in documents of 4,000 characters, at 1 times.
      documents: for the deduplication's index, of eight words each, at 1 times.
    """
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        print("rules, and no comparison:")
        for times in TIMES:
            texts = made_documents(paragraphs, int(times * megabytes * 1e6))
            measured(work / f"rules-{times}", RULES, texts, times)
        print("near_duplicates alone:")
        recipe = Recipe(steps=(NearDuplicates(),))
        peaks = [
            measured(work / f"near-{times}", recipe, short_documents(times * documents), times)
            for times in TIMES
        ]
        (first, last), span = (peaks[0], peaks[-1]), (TIMES[-1] - TIMES[0]) * documents
        print(
            f"the index: {(last['worker_mb'] - first['worker_mb']) * 1e6 / span:.0f} bytes per "
            f"document in the task that compares, {last['index_bytes'] / last['kept']:.0f} on disk"
        )


def measured(work: Path, recipe: Recipe, texts: Iterator[str], times: int) -> dict[str, Any]:
    """What `with_llm_jax.py` printed, which is shown."""
    work.mkdir()
    path = work / "recipe.json"
    path.write_text(json.dumps(to_dict(recipe)), encoding="utf-8")
    megabytes = write_files(work / "text", texts)
    took = started(
        sys.executable, "with_llm_jax.py", [work / "text", work / "out", WORKERS, path], 2
    )
    bands = sum(step.columns for step in recipe.steps if isinstance(step, NearDuplicates))
    took["index_bytes"] = took["kept"] * 8 * (bands + 1)
    print(
        f"  {times:2} times: {megabytes:6.1f} MB, {took['kept']:9,} documents kept   peak "
        f"{took['parent_mb']:6.1f} MB in the parent, {took['worker_mb']:6.1f} MB in a task   "
        f"{took['seconds']:.0f} s",
        flush=True,
    )
    return took
