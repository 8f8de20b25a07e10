"""What is declared of a parameter beside its shape: the names of its axes, and its role.

Whoever treats parameters differently asks for the role, and never guesses it from the axes: weight
decay, Muon, the dtype in storage and in inference, the norm of the gradient.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from llm_jax.parallel.mesh import Logical

Role = Literal["matrix", "table", "positions", "vector", "router", "balance"]
"""matrix: a weight of a block. table: the embedding or the unembedding of the vocabulary.
positions: a learned embedding of positions. vector: norms and biases. router: scores of experts.
balance: a bias that balances experts, whose "gradient" is not a derivative of the loss."""


@dataclass(frozen=True)
class Spec:
    """A leaf of the tree of `transformer.specs`."""

    axes: Logical
    """Names of its axes in the table of `parallel/mesh.py`."""
    role: Role
