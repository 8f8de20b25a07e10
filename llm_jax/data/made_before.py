"""Whether an output folder already holds what a command is to make."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llm_jax.config import UserError
from llm_jax.data.sources.left_out import check_kept


def same_or_replaceable(
    out: Path,
    info: dict[str, Any],
    fingerprint: str,
    *,
    what: str,
    strict: bool,
    most: float,
    overwrite: bool,
) -> dict[str, Any] | None:
    """`info`, the record in `out`, if it has this fingerprint; None if `out` may be replaced.

    Args:
      what: `out` holds, with its article.
      strict: no loss is accepted.
      most: share of losses that is accepted.

    Raises:
      UserError: `out` has other inputs or settings, or more losses than are accepted.
    """
    if info["fingerprint"] == fingerprint:
        check_kept(info["lost"], strict=strict, most=most)
        return info
    if overwrite:
        return None
    raise UserError(
        f"--out {str(out)!r} holds {what} of other inputs or settings: choose another folder, or "
        "give --overwrite."
    )
