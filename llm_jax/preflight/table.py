"""A preflight result as readable lines."""

from __future__ import annotations

from typing import Any

from llm_jax.config.wording import counted

ADVICE = {
    "activations": "recompute more (--compute.remat full), or smaller micro-batches "
    "(--compute.accumulate 2)",
    "logits": "fewer logits at a time (--compute.loss-chunk)",
    "gathered_weights": "split each layer more (--parallel.tensor)",
}
"""Part of the memory → how to make it smaller. All other parts are the training state."""
STATE_ADVICE = "split the state over more devices (--parallel.fsdp, or a larger slice)"


def size(count: float) -> str:
    """Bytes in a readable unit: `13.4 GB`."""
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= scale:
            return f"{count / scale:.3g} {unit}"
    return f"{count / 1e3:.3g} kB"


def lines(result: dict[str, Any]) -> list[str]:
    mesh = ", ".join(f"{axis} {size}" for axis, size in result["mesh"].items()) or "one device"
    said = [
        f"{result['name']} on {result['topology']} ({counted(result['chips'], 'chip')}): "
        f"mesh {mesh}, {counted(result['batch']['sequences'], 'sequence')} per step in "
        f"{counted(result['accumulate'], 'micro-batch')}, remat {result['remat']}, "
        f"{result['attention']} attention",
        "",
        *_verdict(result),
    ]
    if result["attention_reason"]:
        said.append(f"note: {result['attention_reason']}")
    if result["compiler"]:
        said.append(f"compiled for {', '.join(result['compiler'])}")
    if "collectives_by_axis" in result:
        said += ["", *_collectives(result), "", *_times(result)]
    said += _tried(result)
    how = "from an earlier run" if result["cached"] else "now"
    said += ["", f"Compiled in {result['compile_seconds']:.0f} s ({how})."]
    return [*said, f"Wrote {result['written']}."] if "written" in result else said


def _verdict(result: dict[str, Any]) -> list[str]:
    parts = result["hbm_bytes"]
    peak, limit, capacity = parts["peak"], result["hbm_limit"], result["hbm_capacity"]
    said = [
        f"{'fits' if result['fits'] else 'DOES NOT FIT'}: peak {size(peak)} per device of "
        f"{size(limit)} (90% of {size(capacity)})"
    ]
    if "output" in parts:
        said.append(
            "  "
            + ", ".join(
                f"{name.replace('_', ' ')} {size(parts[name])}"
                for name in ("arguments", "temp", "output", "aliased", "generated_code")
            )
            + " (peak = all − 2 × aliased)"
        )
    planned = result["planned_bytes"]
    if planned:
        said.append(
            f"  the planner expected {size(planned['total'])} ({planned['total'] / peak - 1:+.0%})"
        )
    if not result["fits"]:
        said.append(f"  {peak / limit:.2f} times the limit: {advice(planned)} (--fix tries it)")
    return said


def advice(planned: dict[str, int] | None) -> str:
    """What to change, from the largest part in the planner's prediction."""
    if planned is None:
        return f"{ADVICE['activations']}, or {STATE_ADVICE}"
    parts = {name: bytes_ for name, bytes_ in planned.items() if name in ADVICE}
    state = planned["total"] - sum(parts.values())
    largest = max(parts, key=lambda name: parts[name])
    if state > parts[largest]:
        return f"most is parameters, gradients and moments ({size(state)}): {STATE_ADVICE}"
    return f"most is {largest.replace('_', ' ')} ({size(parts[largest])}): {ADVICE[largest]}"


def _collectives(result: dict[str, Any]) -> list[str]:
    rows = [("collective", "mesh axes", "times per step", "bytes")]
    rows += [
        (one["kind"], " x ".join(one["axes"]), f"{one['count']:,}", size(one["bytes"]))
        for one in result["collectives_by_axis"]
    ]
    w = [max(len(row[i]) for row in rows) for i in range(4)]
    return [f"{a:<{w[0]}}  {b:<{w[1]}}  {c:>{w[2]}}  {d:>{w[3]}}" for a, b, c, d in rows]


def _times(result: dict[str, Any]) -> list[str]:
    low, high = result["step_seconds"]
    parts, xla = result["roofline_seconds"], result["xla"]
    said = [
        f"step {low:.3g} s if exchange and math overlap, {high:.3g} s if not: math "
        f"{parts['math']:.3g}, memory {parts['hbm']:.3g}, collectives {parts['collectives']:.3g}"
    ]
    estimate = f"{xla['seconds']:.3g} s" if xla["seconds"] else f"{xla['cycles']:,} cycles"
    said.append(f"XLA's own estimate without kernels and collectives: {estimate}")
    return said


def _tried(result: dict[str, Any]) -> list[str]:
    said = [""] if "tried" in result else []
    for one in result.get("tried", []):
        what = one.get("change") or (
            f"{one['mesh']}, remat {one['remat']}, {counted(one['accumulate'], 'micro-batch')}, "
            "step "
            f"{one['planned_seconds']:.3g} s planned"
        )
        verdict = "fits" if one["fits"] else "does not fit"
        said.append(f"tried {what}: {size(one['peak'])}, {verdict}")
    return said
