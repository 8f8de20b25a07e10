"""A verb's result as the one line that `--json` prints."""

from __future__ import annotations

import json
import math
from typing import Any


def json_line(result: dict[str, Any], encoding: str | None) -> str:
    """`result` as JSON on one line.

    Text is written as it is if `encoding` has all its characters, otherwise with JSON's ASCII
    escapes. JSON has no NaN or infinity: they become null.
    """
    result = _finite(result)
    line = json.dumps(result, ensure_ascii=False, allow_nan=False)
    try:
        line.encode(encoding or "ascii")
    except UnicodeEncodeError:
        return json.dumps(result, allow_nan=False)
    return line


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
