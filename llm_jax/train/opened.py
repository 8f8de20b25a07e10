"""Opens a run's parameters without reading them, for an export that does not hold them all."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from llm_jax.config import UserError
from llm_jax.models.protocol import model_of
from llm_jax.runs.claim import writer_of
from llm_jax.runs.files import scratch as scratch_folder
from llm_jax.train.finite import require_finite
from llm_jax.train.load import Found, Run, average_of, find
from llm_jax.train.optimizers.schedule_free import is_masked, schedule_free_average
from llm_jax.train.plain import key_of
from llm_jax.train.stored import StoredArray, StoredItem


@contextlib.contextmanager
def open_run(
    folder: str | Path,
    step: int | None = None,
    *,
    scratch: Path,
    verify: bool = True,
    trust_code: bool = False,
) -> Iterator[Run]:
    """As `load_run`, but each leaf of `params` is a `StoredArray`, of which slices are read when
    they are asked for. Weights that are not finite numbers raise `UserError` then.

    Args:
      scratch: files that the arrays may need are beside this path until the block ends.
    """
    found = find(folder, step, verify=verify, trust_code=trust_code, shared=False)
    stacks = model_of(found.config.model).layout(found.config.model).stacks
    with scratch_folder(scratch) as made:
        params = StoredItem(found.checkpoint / "params", made).tree(found.shapes, stacks)
        if found.averages:
            params = _averages(found, params, StoredItem(found.checkpoint / "opt", made), stacks)
        params = jax.tree_util.tree_map_with_path(
            lambda path, leaf: leaf.looked_at(functools.partial(_finite, found, path)), params
        )
        try:
            yield Run(
                found.config, found.step, params, found.tokenizer, found.verified, _notes(found)
            )
        except UserError:
            if found.checkpoint.exists():
                raise
            raise UserError(
                f"{found.name} was deleted while it was read: the run keeps the last "
                f"{found.config.checkpoint.keep_last:,} (checkpoint.keep_last). Run this again."
            ) from None


def _notes(found: Found) -> tuple[str, ...]:
    notes = []
    if writer := writer_of(found.folder, inside=True):
        notes.append(
            f"the run is being written by {writer}: step {found.step:,} of "
            f"{found.config.steps:,} is its newest whole checkpoint"
            if found.step == found.steps[-1]
            else f"the run is being written by {writer}; step {found.step:,} is whole"
        )
    if found.averages:
        notes.append("the weights are the average that schedule-free keeps, which is evaluated")
    return tuple(notes)


def _finite(found: Found, path: Any, part: np.ndarray, place: Any) -> np.ndarray:
    """`part` of the leaf at `path`; raises `UserError` if it is not finite."""
    name = "/".join(str(entry.key) for entry in path)
    require_finite({name: part}, found.name, found.way_out)
    return part


def _averages(found: Found, params: Any, opt: StoredItem, stacks: Any) -> Any:
    """`StoredArray`s of the average, computed when a slice is read."""
    average = average_of(found.config, found.shapes)
    if average is None:
        return params
    path, node = average
    keys = [key_of(entry) for entry in path]
    b1 = np.asarray(opt.array([*keys, "b1"], node.b1.shape, stacked=False))

    def averaged(z_path: Any, z: Any, y: StoredArray) -> StoredArray:
        if is_masked(z):
            return y
        names = [key_of(entry) for entry in z_path]
        stored = opt.array([*keys, "z", *names], z.shape, stacked=names[0] in stacks)

        def look(part: np.ndarray, place: Any) -> np.ndarray:
            return np.asarray(schedule_free_average({"y": part}, b1, {"y": stored[place]})["y"])

        return y.looked_at(look)

    return jax.tree_util.tree_map_with_path(averaged, node.z, params, is_leaf=is_masked)
