"""Writes parameters as a checkpoint one layer at a time, for models that do not fit in memory.

The files are those of any checkpoint, with a chunk for each layer (or expert of a layer), so that
layers can be read again one at a time.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore as ts

from llm_jax.runs.disk_errors import system_error
from llm_jax.train.failures import without_tensorstore_noise

Place = tuple[int, ...]
CHUNK_BYTES = 64_000_000
"""Largest chunk of an array without layers."""


class LayeredArray:
    """An array that is made in parts while it is written.

    Attributes:
      shape, dtype: of the whole array.
      leading: how many leading axes the places of the parts have.

    Args:
      parts: yields the index of each part on the leading axes, and its values.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        dtype: np.dtype,
        parts: Callable[[], Iterator[tuple[Place, np.ndarray]]],
        leading: int = 0,
    ) -> None:
        self.shape, self.dtype, self.parts, self.leading = shape, dtype, parts, leading

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @classmethod
    def of(cls, array: Any, *, stacked: bool) -> LayeredArray:
        """The same of an array in memory."""
        values = np.asarray(array)

        def parts() -> Iterator[tuple[Place, np.ndarray]]:
            places: list[Place] = [(row,) for row in range(len(values))] if stacked else [()]
            yield from ((place, values[place]) for place in places)

        return cls(values.shape, values.dtype, parts, int(stacked))


class _Handler(ocp.type_handlers.NumpyHandler):
    """Orbax's handler of NumPy arrays, for arrays that are written in parts, one after another.

    Attributes:
      failure: why an array could not be made or written. It is raised when all have ended: Orbax
        would leave the others pending, and Python complain of them later.
    """

    def __init__(self) -> None:
        super().__init__(deepcopy_host_arrays=False)
        self.failure: Exception | None = None
        self._turn = asyncio.Lock()

    async def _open_and_write(self, value: Any, tspec: dict[str, Any], ts_context: Any) -> None:
        async with self._turn:
            if self.failure is not None:
                return
            try:
                array = await ts.open(ts.Spec(tspec), create=True, open=True, context=ts_context)
                for place, part in value.parts():
                    await array[place].write(part, can_reference_source_data_indefinitely=True)
            except Exception as error:  # TensorStore raises no narrower one
                self.failure = error


def save_params(folder: Path, step: int, params: Any, meta: dict[str, Any]) -> None:
    """Writes checkpoint `step` into `folder`, a run's folder of checkpoints.

    Args:
      params: tree of `LayeredArray`.

    Raises:
      UserError: the parts of an array say so.
      OSError: the disk fails.
    """
    handler = _Handler()
    registry = ocp.type_handlers.create_type_handler_registry((LayeredArray, handler))
    handlers = {
        "params": ocp.PyTreeCheckpointHandler(type_handler_registry=registry),
        "meta": ocp.JsonCheckpointHandler(),
    }
    args = ocp.args.Composite(
        params=ocp.args.PyTreeSave(params, save_args=jax.tree.map(_chunks, params)),
        meta=ocp.args.JsonSave(meta),
    )
    options = ocp.CheckpointManagerOptions(enable_async_checkpointing=False)
    try:
        with (
            without_tensorstore_noise(),
            ocp.CheckpointManager(
                folder.absolute(), options=options, item_handlers=handlers
            ) as manager,
        ):
            manager.save(step, args=args)
    except Exception as error:  # Orbax raises no narrower one
        raise _told(handler.failure or error, folder) from error
    if handler.failure is not None:
        raise _told(handler.failure, folder)


def _told(error: Exception, folder: Path) -> Exception:
    """What is said of a failed write; TensorStore tells of a disk by these two classes."""
    return system_error(error, folder) if isinstance(error, ValueError | RuntimeError) else error


def _chunks(array: LayeredArray) -> ocp.SaveArgs:
    axes: Sequence[int] = range(array.leading)
    return ocp.SaveArgs(shard_axes=tuple(axes), chunk_byte_size=None if axes else CHUNK_BYTES)
