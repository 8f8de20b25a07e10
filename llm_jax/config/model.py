"""The architecture as data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from llm_jax.config.errors import positive, require

MOST_LAYERS = 10_000
"""Ten times the deepest that was trained (DeepNet, Wang et al. 2022): what a model is asked about
its layers is answered in a tuple of one entry per layer."""


@dataclass(frozen=True, kw_only=True)
class Llama3Rope:
    """Llama 3.1's frequency scaling: long wavelengths are divided by `factor`, short ones kept."""

    kind: Literal["llama3"] = "llama3"
    factor: float = 8.0
    original_max_seq_len: int = 8192
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0

    def __post_init__(self) -> None:
        _check_rope_scaling(self, "low_freq_factor", "high_freq_factor")


@dataclass(frozen=True, kw_only=True)
class YarnRope:
    """YaRN (Peng et al. 2023): NTK-by-parts interpolation plus an attention temperature."""

    kind: Literal["yarn"] = "yarn"
    factor: float = 4.0
    original_max_seq_len: int = 32768
    beta_fast: float = 32.0
    beta_slow: float = 1.0

    def __post_init__(self) -> None:
        _check_rope_scaling(self, "beta_slow", "beta_fast")


def _check_rope_scaling(scaling: Llama3Rope | YarnRope, low: str, high: str) -> None:
    owner = "model.rope_scaling"
    positive(owner, scaling, "factor", "original_max_seq_len", low, high)
    factor, least, most = scaling.factor, getattr(scaling, low), getattr(scaling, high)
    require(factor >= 1, f"{owner}.factor is {factor}: it must be 1 or more.")
    require(most > least, f"{owner}.{high} is {most}: it must be above {low} = {least}.")


@dataclass(frozen=True, kw_only=True)
class MoeConfig:
    """Mixture of experts in place of the MLP: a router sends each token to `top_k` of `experts`."""

    experts: int
    top_k: int
    d_ff: int
    """Width of one expert; `model.d_ff` is that of layers without experts."""
    shared_d_ff: int = 0
    """Width of the shared experts, which see every token, together (DeepSeekMoE, Dai et al. 2024);
    0: none."""
    router: Literal["softmax", "sigmoid"] = "softmax"
    """How scores become affinities: over all experts, or each for itself (DeepSeek-V3)."""
    renormalise: bool = True
    """Divide the affinities of the chosen experts by their sum."""
    scale: float = 1.0
    """Factor on the output of the routed experts (DeepSeek-V2)."""
    dense_layers: int = 0
    """The first layers keep the dense MLP."""
    every: int = 1
    """After them, each `every`-th layer has experts, the last of each group (GLaM: 2)."""
    capacity_factor: float | None = None
    """Assignments that an expert takes of a sequence, relative to an even share; those above are
    dropped and counted. None: nothing is dropped."""
    balance_loss: float = 0.0
    """Weight of the load-balancing loss (Switch Transformer, Fedus et al. 2022, eq. 4)."""
    balance_rate: float = 0.0
    """Step per update of the bias that balances the choice of experts without a loss
    (Wang et al. 2024; DeepSeek-V3: 0.001); 0: no bias."""
    z_loss: float = 0.0
    """Weight of (log Z)² of the router's scores (ST-MoE, Zoph et al. 2022)."""

    def __post_init__(self) -> None:
        positive("model.moe", self, "experts", "top_k", "d_ff", "scale", "every")
        require(
            self.top_k <= self.experts,
            f"model.moe.top_k is {self.top_k}, more than model.moe.experts = {self.experts}: "
            "choose fewer.",
        )
        for name in ("shared_d_ff", "dense_layers", "balance_loss", "balance_rate", "z_loss"):
            value = getattr(self, name)
            require(0 <= value < math.inf, f"model.moe.{name} is {value}: it must not be negative.")
        if self.capacity_factor is not None:
            positive("model.moe", self, "capacity_factor")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The architecture of a decoder-only Transformer. Llama, Qwen, Gemma, Mistral and GPT-2 are
    values of this class, not subclasses. Execution choices (dtype, remat …) are `ComputeConfig`.
    """

    vocab_size: int
    num_layers: int
    d_model: int
    num_heads: int
    num_kv_heads: int
    """Key/value heads; fewer than `num_heads` is grouped-query attention (Ainslie et al. 2023)."""
    head_dim: int
    d_ff: int
    max_seq_len: int
    """Longest context the model is meant for (size of learned positions, HF's
    `max_position_embeddings`)."""
    activation: Literal["swiglu", "geglu", "gelu"] = "swiglu"
    """`gelu` is the two-matrix MLP with the tanh GELU of GPT-2; the others are gated."""
    norm: Literal["rmsnorm", "layernorm"] = "rmsnorm"
    norm_eps: float = 1e-5
    post_norm: bool = False
    """Also normalise each sub-layer's output before it joins the residual stream (Gemma 2)."""
    norm_plus_one: bool = False
    """RMSNorm multiplies by (1 + scale), with scale starting at 0 (Gemma)."""
    qk_norm: bool = False
    """RMSNorm over each query and key head before RoPE (Qwen3)."""
    positions: Literal["rope", "learned"] = "rope"
    rope_theta: float = 10_000.0
    rope_scaling: Llama3Rope | YarnRope | None = None
    qkv_bias: bool = False
    out_bias: bool = False
    mlp_bias: bool = False
    attention_init: Literal["normal", "induction"] = "normal"
    """`induction` starts with an induction head, so that a small model learns to copy early
    (`model/induction.py`); it takes RoPE, `qkv_bias` and `qk_norm`."""
    tie_embeddings: bool = False
    scale_embeddings: bool = False
    """Multiply the embedding by sqrt(d_model) (Gemma)."""
    attn_scale: float | None = None
    """Factor on q·k; None is 1/sqrt(head_dim)."""
    attn_softcap: float | None = None
    """softcap·tanh(x/softcap) on attention scores (Gemma 2)."""
    logit_softcap: float | None = None
    sliding_window: int | None = None
    """Keys a local layer sees, its own position included; None: every layer is global."""
    window_pattern: str = "L"
    """Repeated over the layers: L local (sliding window), G global. Used with `sliding_window`."""
    moe: MoeConfig | None = None
    """Experts in place of the MLP; None: every layer is dense."""

    def __post_init__(self) -> None:
        positive("model", self, "vocab_size", "num_layers", "d_model", "num_heads", "num_kv_heads")
        positive("model", self, "head_dim", "d_ff", "max_seq_len", "norm_eps", "rope_theta")
        require(
            self.num_layers <= MOST_LAYERS,
            f"model.num_layers is {self.num_layers}: at most {MOST_LAYERS} are supported.",
        )
        require(
            self.num_heads % self.num_kv_heads == 0,
            f"model.num_heads is {self.num_heads}, which model.num_kv_heads = {self.num_kv_heads} "
            "does not divide: choose a divisor of it.",
        )
        require(
            self.head_dim % 2 == 0 or self.positions != "rope",
            f"model.head_dim is {self.head_dim}: rotary positions need an even number.",
        )
        require(
            set(self.window_pattern) <= {"L", "G"} and self.window_pattern != "",
            f"model.window_pattern is {self.window_pattern!r}: use letters L (local) and G "
            "(global), such as 'LLLLLG'.",
        )
        if self.attention_init == "induction":
            wanted = {"positions": "rope", "qkv_bias": True, "qk_norm": True, "moe": None}
            for name, value in wanted.items():
                require(
                    getattr(self, name) == value,
                    f"model.attention_init is 'induction', which takes model.{name} = {value!r}: "
                    "set that, or leave it 'normal'.",
                )
            require(
                self.num_layers > 1,
                "model.attention_init is 'induction', which takes two layers, and model.num_layers "
                "is 1: set more, or leave it 'normal'.",
            )
        if self.sliding_window is not None:
            positive("model", self, "sliding_window")
        for name in ("attn_softcap", "logit_softcap", "attn_scale"):
            value = getattr(self, name)
            valid = value is None or 0 < value < math.inf
            require(valid, f"model.{name} is {value}: give a finite number above 0.")
        require(
            not (self.norm_plus_one and self.norm == "layernorm"),
            "model.norm_plus_one goes with model.norm = 'rmsnorm' only.",
        )
        if self.moe is not None:
            require(
                any(self.moe_layers),
                f"model.moe.dense_layers is {self.moe.dense_layers} and model.moe.every is "
                f"{self.moe.every}, which leaves no layer of {self.num_layers} with experts.",
            )
            require(not self.mlp_bias, "model.mlp_bias is True: experts have no biases.")

    @property
    def moe_layers(self) -> tuple[bool, ...]:
        """Which layers have experts."""
        if self.moe is None:
            return (False,) * self.num_layers
        first, every = self.moe.dense_layers, self.moe.every
        places = (i - first for i in range(self.num_layers))
        return tuple(i >= 0 and i % every == every - 1 for i in places)

    @property
    def gated(self) -> bool:
        return self.activation != "gelu"

    @property
    def windows(self) -> tuple[int | None, ...]:
        """Window of each layer, None where it attends to everything before it."""
        if self.sliding_window is None:
            return (None,) * self.num_layers
        pattern = self.window_pattern
        return tuple(
            self.sliding_window if pattern[i % len(pattern)] == "L" else None
            for i in range(self.num_layers)
        )
