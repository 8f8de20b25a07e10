"""Mixture of experts as data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from llm_jax.config.errors import positive, require


@dataclass(frozen=True, kw_only=True)
class MoeConfig:
    """Mixture of experts in place of the MLP: a router sends each token to `top_k` of `experts`."""

    experts: int
    """Routed experts per layer."""
    top_k: int
    """Experts per token."""
    d_ff: int
    """Width of one expert. `model.d_ff` is the width of layers without experts."""
    shared_d_ff: int = 0
    """Total width of the shared experts, which see every token (DeepSeekMoE, Dai et al. 2024).
    0: no shared experts."""
    shared_gate: bool = False
    """Multiply the output of the shared experts by a sigmoid of the token (Qwen1.5-MoE, 2024)."""
    router: Literal["softmax", "sigmoid"] = "softmax"
    """Turns scores into affinities: `softmax` over all experts, or a `sigmoid` for each expert
    (DeepSeek-V3)."""
    renormalise: bool = True
    """Divide the affinities of the chosen experts by their sum."""
    scale: float = 1.0
    """Factor on the output of the routed experts (DeepSeek-V2)."""
    groups: int = 1
    """Equal groups of neighbouring experts, such as those of one device (DeepSeek-V2, §2.2.2)."""
    top_groups: int = 1
    """Groups that a token's experts come from. With `softmax` they are those of the best experts
    (DeepSeek-V2), with `sigmoid` those whose two best have the largest sum (DeepSeek-V3)."""
    dense_layers: int = 0
    """Number of first layers that keep the dense MLP."""
    every: int = 1
    """After the first `dense_layers`, the last layer of each group of `every` has experts
    (GLaM: 2)."""
    capacity_factor: float | None = None
    """Most assignments that an expert takes from one sequence, relative to an even share. The rest
    are dropped and counted. None: nothing is dropped."""
    balance_loss: float = 0.0
    """Weight of the load-balancing loss (Switch Transformer, Fedus et al. 2022, eq. 4)."""
    balance_rate: float = 0.0
    """Step size of the bias that balances the experts without a loss (Wang et al. 2024;
    DeepSeek-V3: 0.001). 0: no bias."""
    z_loss: float = 0.0
    """Weight of the squared log partition function, (log Z)², of the router's scores (ST-MoE, Zoph
    et al. 2022)."""

    def __post_init__(self) -> None:
        positive("model.moe", self, "experts", "top_k", "d_ff", "scale", "every")
        require(
            self.top_k <= self.experts,
            f"model.moe.top_k is {self.top_k}, more than model.moe.experts = {self.experts}: "
            "choose fewer.",
        )
        require(
            not self.shared_gate or self.shared_d_ff > 0,
            "model.moe.shared_gate is True, which requires shared experts: set "
            "model.moe.shared_d_ff, or shared_gate to False.",
        )
        self._check_groups()
        for name in ("shared_d_ff", "dense_layers", "balance_loss", "balance_rate", "z_loss"):
            value = getattr(self, name)
            require(0 <= value < math.inf, f"model.moe.{name} is {value}: it must not be negative.")
        if self.capacity_factor is not None:
            positive("model.moe", self, "capacity_factor")

    def _check_groups(self) -> None:
        positive("model.moe", self, "groups", "top_groups")
        size, rest = divmod(self.experts, self.groups)
        require(
            rest == 0,
            f"model.moe.groups is {self.groups}, which does not divide model.moe.experts = "
            f"{self.experts}: choose a divisor.",
        )
        require(
            self.top_groups <= self.groups,
            f"model.moe.top_groups is {self.top_groups}, more than model.moe.groups = "
            f"{self.groups}: choose fewer.",
        )
        require(
            self.top_k <= self.top_groups * size,
            f"model.moe.top_k is {self.top_k}, but {self.top_groups} of {self.groups} groups have "
            f"only {self.top_groups * size} experts: raise model.moe.top_groups.",
        )
        require(
            self.groups == 1 or self.router == "softmax" or size > 1,
            f"model.moe.groups is {self.groups}, which leaves one expert in each: with router "
            "'sigmoid' a group needs two.",
        )
