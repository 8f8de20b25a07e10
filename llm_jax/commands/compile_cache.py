"""What XLA has compiled is kept between starts, in the user's cache folder.

JAX does the keeping (its persistent compilation cache). An entry belongs to a program, its options,
the versions of JAX and XLA, and the devices. The oldest entries go when the folder is full.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

MOST_BYTES = 2 << 30
LEAST_SECONDS = 0.5
"""Programs that compile faster are not kept."""
VARIABLE = "JAX_COMPILATION_CACHE_DIR"


def environment() -> dict[str, str]:
    """The settings of JAX's cache; none if the user has set its folder, or if there are several
    processes.

    Processes of one run must not differ in what they compile: on GPUs they share the work of
    tuning, and one that has the program at hand would not take part.
    """
    if VARIABLE in os.environ or "JAX_COORDINATOR_ADDRESS" in os.environ:
        return {}
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        path = Path(base) if base else Path.home() / ".cache"
        path = path / "llm_jax" / "compiled"
        path.mkdir(parents=True, exist_ok=True)
        if not os.access(path, os.W_OK | os.X_OK):
            raise PermissionError(13, "Permission denied")
    except (OSError, RuntimeError) as error:  # no home, or one that cannot be written
        reason = error.strerror if isinstance(error, OSError) else error
        print(
            f"What is compiled is not kept between starts, since the cache folder cannot be "
            f"written ({reason}): set {VARIABLE} to one that can, or to nothing.",
            file=sys.stderr,
        )
        return {}
    return {
        VARIABLE: str(path),
        "JAX_COMPILATION_CACHE_MAX_SIZE": str(MOST_BYTES),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": str(LEAST_SECONDS),
    }
