"""TensorFlow Datasets, imported when first needed (over a second) and kept quiet.

tfds reports progress with tqdm bars, and with INFO and WARNING lines of absl, such as one for each
Python module that is missing. Errors are still shown.
"""

from __future__ import annotations

import contextlib
import functools
from types import ModuleType
from typing import Any, TextIO


@functools.cache
def load_tfds() -> ModuleType:
    """The module `tensorflow_datasets`."""
    from absl import logging

    logging.set_verbosity(logging.ERROR)
    import tensorflow_datasets

    tensorflow_datasets.disable_progress_bar()
    return tensorflow_datasets


def prepare(builder: Any, messages: TextIO, download_dir: str | None = None) -> None:
    """`builder.download_and_prepare()`, which prints to stdout, where only results belong."""
    with contextlib.redirect_stdout(messages):
        builder.download_and_prepare(download_dir=download_dir)
