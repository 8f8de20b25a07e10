"""A start of `train` that fails on one host is told to the other processes of the run.

They would wait for this one to join them, for minutes, and end without a word about the cause.
"""

from __future__ import annotations

import os
from collections.abc import Sequence


def tell(argv: Sequence[str], sentence: str, code: int) -> None:
    """Tells them and ends this process with the exit `code`; returns if there are none.

    Args:
      argv: words of the command line.
    """
    if list(argv[:1]) != ["train"] or not os.environ.get("JAX_COORDINATOR_ADDRESS"):
        return
    from llm_jax.facts.attached import WITHOUT_TPU, maybe_tpu
    from llm_jax.train import distributed  # imports JAX

    if not maybe_tpu():
        os.environ.update(WITHOUT_TPU | os.environ)
    distributed.tell(sentence, code)
