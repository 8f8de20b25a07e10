"""What a run keeps and sends beside its chips: checkpoints in object storage, weights out of it."""

from __future__ import annotations

from typing import Any

from llm_jax.config import CheckpointConfig, OptimConfig
from llm_jax.facts.sizes import state_bytes
from llm_jax.plan.plan import Plan

MONTH_HOURS = 730.0
"""Hours in a month, as clouds bill it."""
WRITTEN = 1
"""Checkpoints that exist beside those that are kept, while one is written."""


def storage(plan: Plan) -> dict[str, Any] | None:
    """Bytes and US dollars of checkpoints and of the weights that leave the cloud, as JSON values;
    None for a machine of one's own.

    `storage_usd` is bytes of a checkpoint × checkpoints kept × months × price of a GB-month;
    `egress_usd` bytes of the weights × price of a GB. None where a price is not known. Neither is
    a part of the plan's `usd`.
    """
    request, moments = plan.request, plan.execution.layout.moments
    if request.chip.kind == "cpu":
        return None
    if request.given and request.given.run:
        optim = request.given.run.optim
    else:
        kind = plan.hyper.optimizer
        optim = OptimConfig(kind=kind, moment_dtype=moments, second_moment_dtype=moments)
    state = state_bytes(plan.model, optim)
    held = state["params"] + state["moments"]
    kept, months = CheckpointConfig.keep_last + WRITTEN, plan.hours / MONTH_HOURS
    stored, sent = request.prices.storage_gb_month, request.prices.egress_gb
    return {
        "checkpoint_bytes": held,
        "checkpoints_kept": kept,
        "months": months,
        "usd_per_gb_month": stored.usd if stored else None,
        "storage_usd": held / 1e9 * kept * months * stored.usd if stored else None,
        "storage_source": f"{stored.source}, {stored.date}" if stored else None,
        "weights_bytes": state["params"],
        "usd_per_gb_egress": sent.usd if sent else None,
        "egress_usd": state["params"] / 1e9 * sent.usd if sent else None,
        "egress_source": f"{sent.source}, {sent.date}" if sent else None,
    }
