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


def check_records(folder: Path) -> None:
    """Raises `UserError` if a file of the records in `folder` is missing, damaged in its shape, or
    not a file: tfds would wait for a pipe without end."""
    path = folder / "dataset_info.json"
    info = read_json(path)
    try:
        require_shape(info, SHAPE)
    except UserError as error:
        raise UserError(f"{path} is damaged ({error}): build the dataset again.") from None
    for split in info["splits"]:
        count, name = len(split["shardLengths"]), split["name"]
        for number in range(count):
            file = f"{info['name']}-{name}.{info['fileFormat']}-{number:05d}-of-{count:05d}"
            if not (folder / file).is_file():
                raise UserError(
                    f"The file {folder / file} of the dataset is missing or is not a regular "
                    "file: restore it, or build the dataset again."
                )
