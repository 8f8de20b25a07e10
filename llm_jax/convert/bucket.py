"""A Hugging Face folder behind an address (gs://, s3://, hf:// and others), read by fsspec.

Its small files are copied, its weights are read a tensor at a time, by ranges of bytes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from llm_jax.config import UserError
from llm_jax.convert.tensor_file import TensorFile
from llm_jax.data.sources.remote import folder_files, shown
from llm_jax.runs.files import scratch

LARGEST_COPY = 100_000_000
"""Bytes of a file beside the weights: a tokenizer.json of 250,000 tokens has 35 MB."""
PICKLED = (".bin", ".pt", ".pth", ".pkl", ".h5", ".msgpack", ".onnx", ".gguf")
"""Other forms of the weights, which are not read."""


@contextlib.contextmanager
def opened(address: str, beside: Path) -> Iterator[tuple[Path, Callable[[str], TensorFile]]]:
    """A copy of the folder without its weights, and a function that opens a file of weights.

    Where an error names the copy, it comes out with the address in its place.

    Args:
      beside: path beside which the copy is, until the block ends.

    Raises:
      UserError: the address cannot be read, or a file beside the weights is too large.
    """
    files = folder_files(address, "FOLDER")
    place = shown(address).rstrip("/")

    def open_weights(name: str) -> TensorFile:
        file = files.get(name)
        if file is None or file.size is None:
            raise UserError(f"There is no file {place}/{name}: check the address, or its index.")
        return TensorFile(file.name, file.size, file.read)

    with scratch(beside) as folder:
        for name, file in files.items():
            if name.endswith((".safetensors", *PICKLED)) or file.size is None:
                continue
            if file.size > LARGEST_COPY:
                raise UserError(
                    f"{file.name} has {file.size:,} bytes, more than {LARGEST_COPY:,}: remove it."
                )
            (folder / name).write_bytes(file.read(0, file.size))
        try:
            yield folder, open_weights
        except UserError as error:
            error.args = (str(error).replace(str(folder), place),)
            raise
