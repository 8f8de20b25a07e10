"""How long a trainer lives after a request to stop, as whoever started it says."""

from __future__ import annotations

import math
from collections.abc import Mapping

from llm_jax.config.errors import require

GRACE = "LLM_JAX_GRACE_SECONDS"
"""Environment variable; the launcher sets it to the job's `grace_seconds`."""


def grace_seconds(env: Mapping[str, str]) -> float | None:
    """Seconds from SIGTERM to SIGKILL; None if nothing tells.

    Raises:
      ConfigError: the variable is not a number above 0.
    """
    text = env.get(GRACE)
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    require(
        seconds > 0 and math.isfinite(seconds),
        f"{GRACE} is {text!r}: set it to the seconds between SIGTERM and SIGKILL, or unset it.",
    )
    return seconds
