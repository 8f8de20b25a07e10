"""The files of a dataset's token records, as tfds names them."""

from __future__ import annotations

from pathlib import Path

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

    A pipe is none: tfds would wait for it without end.
    """
    path = folder / "dataset_info.json"
    try:
        info = read_json(path)
        require_shape(info, SHAPE)
    except UserError as error:
        raise MissingRecords(f"{path} is damaged ({error}): build the dataset again.") from None
    for split in info["splits"]:
        count, name = len(split["shardLengths"]), split["name"]
        for number in range(count):
            file = f"{info['name']}-{name}.{info['fileFormat']}-{number:05d}-of-{count:05d}"
            if not (folder / file).is_file():
                raise MissingRecords(
                    f"The file {folder / file} of the dataset is missing or is not a regular "
                    "file: restore it, or build the dataset again."
                )
