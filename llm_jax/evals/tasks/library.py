"""lm-eval, imported so that it is quiet, asks no network and starts no processes."""

from __future__ import annotations

import functools
import logging
import os
from types import ModuleType

from llm_jax.config.extras import require_packages

SETTINGS = {
    # Data that are not at hand are an error at once, not a minute of retries.
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_OFFLINE": "1",
    # Its bootstraps would fork a process that runs JAX.
    "DISABLE_MULTIPROC": "1",
    # Its bars would mix with our own line.
    "TQDM_DISABLE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
"""Environment variables, unless they are set."""
DOWNLOAD = "HF_DATASETS_OFFLINE=0 HF_HUB_OFFLINE=0"
"""Lets the library download data."""


@functools.cache
def harness() -> ModuleType:
    """The package `lm_eval`.

    Raises:
      UserError: it is not installed.
    """
    require_packages("--tasks", "lm_eval")
    os.environ.update(SETTINGS | os.environ)
    import lm_eval
    import lm_eval.api.metrics
    import lm_eval.api.task
    import lm_eval.evaluator
    import lm_eval.tasks
    import lm_eval.utils
    from jinja2.sandbox import SandboxedEnvironment

    # Task files hold templates, and lm-eval's own environment lets them reach all of Python.
    theirs = lm_eval.utils.env
    lm_eval.utils.env = SandboxedEnvironment(
        loader=theirs.loader, undefined=theirs.undefined, keep_trailing_newline=True
    )
    lm_eval.utils.env.filters.update(theirs.filters)
    for name in ("lm_eval", "datasets", "huggingface_hub"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return lm_eval


@functools.cache
def metric_names() -> frozenset[str]:
    """The metrics that lm-eval has itself. One with another name it takes for a script of the
    package evaluate, which it downloads, or finds in a folder, and runs."""
    harness()
    from lm_eval.api.registry import metric_registry

    return frozenset(metric_registry.keys())
