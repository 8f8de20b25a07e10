"""How many tries each verb gets."""

from __future__ import annotations

from llm_jax.cli import VERBS

# Relative to the others; those that start JAX cost most.
WEIGHTS = {
    "plan": 4,
    "fit": 2,
    "import": 3,
    "launch run": 4,
    "launch status": 2,
    "launch logs": 2,
    "launch stop": 2,
    "train": 2,
    "preflight": 2,
}


def shares(total: int) -> dict[str, int]:
    """Tries by verb, at least `total` together."""
    weights = {verb: WEIGHTS.get(verb, 1) for verb in VERBS}
    whole = sum(weights.values())
    return {verb: -(-total * weight // whole) for verb, weight in weights.items()}
