"""The files of a dataset's token records, as tfds names them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llm_jax.config import UserError, read_json, require_shape

SHAPE = {
    "name": str,
    "fileFormat": str,
    "splits": [{"name": str, "shardLengths": [str]}],
}
"""What tfds writes of the records' files."""


class MissingRecords(UserError):
    """The records of a dataset are not all there, or not described."""


def check_records(folder: Path) -> None:
    """Raises `MissingRecords` unless all files of the records in `folder` are there.

    Anything there that is not a regular file is refused: tfds would wait for a pipe without end.
    """
    path = folder / "dataset_info.json"
    try:
        info = read_json(path)
        require_shape(info, SHAPE)
    except UserError as error:
        raise MissingRecords(f"{path} is damaged ({error}): build the dataset again.") from None
    for file in (folder / "features.json", *_shards(folder, info), *sorted(folder.iterdir())):
        if not file.is_file():
            raise MissingRecords(
                f"The file {file} of the dataset is missing or is not a regular file: restore it, "
                "or build the dataset again."
            )


def _shards(folder: Path, info: dict[str, Any]) -> Iterator[Path]:
    for split in info["splits"]:
        count, name = len(split["shardLengths"]), split["name"]
        for number in range(count):
            shard = f"{number:05d}-of-{count:05d}"
            yield folder / f"{info['name']}-{name}.{info['fileFormat']}-{shard}"
