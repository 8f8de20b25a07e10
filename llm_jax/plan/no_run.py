"""The error of a budget that no run can have."""

from __future__ import annotations

from typing import Literal

from llm_jax.config import UserError


class NoRun(UserError):
    """No run can have the budget.

    Attributes:
      reason: the sentence up to its way out, without flags of `llm-jax plan`.
      change: what to do with the budget.
    """

    def __init__(
        self, reason: str, way_out: str, change: Literal["raise", "lower"], where: str = ""
    ) -> None:
        """`where` is the flag and its value, if the sentence begins with them."""
        super().__init__(f"{where or reason}: {way_out}")
        self.reason, self.change = reason, change
