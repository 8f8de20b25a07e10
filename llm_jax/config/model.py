"""The architecture as data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from llm_jax.config.errors import positive, require
from llm_jax.config.extensions import check_name
from llm_jax.config.latent import LatentConfig
from llm_jax.config.moe import MoeConfig

MOST_LAYERS = 10_000
"""Limit on `num_layers`: ten times the deepest trained model (DeepNet, Wang et al. 2022). It bounds
`moe_layers` and `windows`, tuples with one entry per layer."""


@dataclass(frozen=True, kw_only=True)
class Llama3Rope:
    """Llama 3.1's frequency scaling: low frequencies are divided by `factor`, high ones are kept.

    Raises:
      ConfigError: a field is not above 0, `factor` is below 1, or the bounds are out of order.
    """

    kind: Literal["llama3"] = "llama3"
    """Tells the scalings apart in JSON."""
    factor: float = 8.0
    """Frequencies that are fully scaled are divided by it."""
    original_max_seq_len: int = 8192
    """Context of pretraining, in tokens."""
    low_freq_factor: float = 1.0
    """Pairs with fewer turns than this in the original context are fully scaled."""
    high_freq_factor: float = 4.0
    """Pairs with more turns than this in the original context are kept."""

    def __post_init__(self) -> None:
        _check_rope_scaling(self, "low_freq_factor", "high_freq_factor")


@dataclass(frozen=True, kw_only=True)
class YarnRope:
    """YaRN (Peng et al. 2023): NTK-by-parts interpolation plus an attention temperature.

    Raises:
      ConfigError: a field is not above 0, `factor` is below 1, or the bounds are out of order.
    """

    kind: Literal["yarn"] = "yarn"
    """Tells the scalings apart in JSON."""
    factor: float = 4.0
    """Frequencies that are fully scaled are divided by it."""
    original_max_seq_len: int = 32768
    """Context of pretraining, in tokens."""
    beta_fast: float = 32.0
    """Pairs with more turns than this in the original context are kept."""
    beta_slow: float = 1.0
    """Pairs with fewer turns than this in the original context are fully scaled."""

    def __post_init__(self) -> None:
        _check_rope_scaling(self, "beta_slow", "beta_fast")


def _check_rope_scaling(scaling: Llama3Rope | YarnRope, low: str, high: str) -> None:
    owner = "model.rope_scaling"
    positive(owner, scaling, "factor", "original_max_seq_len", low, high)
    factor, least, most = scaling.factor, getattr(scaling, low), getattr(scaling, high)
    require(factor >= 1, f"{owner}.factor is {factor}: it must be 1 or more.")
    require(most > least, f"{owner}.{high} is {most}: it must be above {low} = {least}.")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The architecture of a decoder-only Transformer. Llama, Qwen, Gemma, Mistral and GPT-2 are
    values of this class, not subclasses. How it is executed (dtype, remat …) is `ComputeConfig`.
    """

    kind: str = "decoder"
    """Family of architectures. FILE.py:NAME: a family of your own."""
    vocab_size: int
    """Rows of the embedding table: at least the tokenizer's pieces."""
    num_layers: int
    """Transformer blocks."""
    d_model: int
    """Width of the residual stream."""
    num_heads: int
    """Query heads."""
    num_kv_heads: int
    """Key/value heads. Fewer than `num_heads` is grouped-query attention (Ainslie et al. 2023)."""
    head_dim: int
    """Size of one head."""
    d_ff: int
    """Width of the MLP."""
    max_seq_len: int
    """Longest context of the model, in tokens: the size of learned positions, and Hugging Face's
    `max_position_embeddings`."""
    activation: Literal["swiglu", "geglu", "clamped_swiglu", "gelu", "gelu_exact"] = "swiglu"
    """`gelu` is GPT-2's MLP: two matrices and the tanh GELU. `gelu_exact`: the same with
    the GELU of the error function. The others are gated; `clamped_swiglu` is gpt-oss's."""
    norm: Literal["rmsnorm", "layernorm"] = "rmsnorm"
    """Kind of normalisation."""
    norm_eps: float = 1e-5
    """Added to the mean square (or variance) before the square root."""
    post_norm: bool = False
    """Also normalise the output of each sub-layer before the residual addition (Gemma 2)."""
    norm_plus_one: bool = False
    """RMSNorm multiplies by (1 + scale), with scale starting at 0 (Gemma)."""
    qk_norm: bool = False
    """RMSNorm over each query and key head before RoPE (Qwen3)."""
    positions: Literal["rope", "learned"] = "rope"
    """Rotary positions, or a learned table of `max_seq_len` rows."""
    rope_theta: float = 10_000.0
    """Base of the rotary frequencies."""
    rope_scaling: Llama3Rope | YarnRope | None = None
    """Frequency scaling for a longer context than that of pretraining."""
    biases: tuple[Literal["qkv", "out", "mlp"], ...] = ()
    """Which matrices have biases: `qkv` queries, keys and values; `out` the attention's output;
    `mlp` those of the MLP, of experts and of their router. In this order."""
    attention_init: Literal["normal", "induction"] = "normal"
    """`induction` starts the model with an induction head, so that a small model learns to copy
    early (`models/decoder/induction.py`). It requires RoPE, biases `qkv` and `qk_norm`."""
    tie_embeddings: bool = False
    """Use the embedding table as the output matrix too."""
    scale_embeddings: bool = False
    """Multiply the embedding by sqrt(d_model) (Gemma)."""
    attn_scale: float | None = None
    """Factor on q·k. None: 1/sqrt(head_dim)."""
    attn_softcap: float | None = None
    """Soft-cap on attention scores: softcap·tanh(x/softcap) (Gemma 2)."""
    logit_softcap: float | None = None
    """Soft-cap on logits, by the same formula (Gemma 2)."""
    sliding_window: int | None = None
    """Keys that a local layer sees, including its own position. None: every layer is global."""
    window_pattern: str = "L"
    """Repeated over the layers: L local (sliding window), G global. Used with `sliding_window`."""
    moe: MoeConfig | None = None
    """Experts in place of the MLP. None: every layer is dense."""
    latent: LatentConfig | None = None
    """Multi-head latent attention in place of keys and values of their own. None: as Llama."""
    attn_sinks: bool = False
    """Each head has a learned score that joins its softmax's denominator, so that it can attend to
    nothing (gpt-oss, Agarwal et al. 2025; StreamingLLM, Xiao et al. 2024)."""

    def __post_init__(self) -> None:
        check_name("model.kind", self.kind)
        require(self.kind != "encoder", "model.kind is 'encoder', which cannot be trained yet.")
        positive("model", self, "num_layers", most=MOST_LAYERS)
        positive("model", self, "vocab_size", "d_model", "num_heads", "num_kv_heads")
        positive("model", self, "head_dim", "d_ff", "max_seq_len", "norm_eps", "rope_theta")
        require(
            self.num_heads % self.num_kv_heads == 0,
            f"model.num_heads is {self.num_heads}, which model.num_kv_heads = {self.num_kv_heads} "
            "does not divide: set num_kv_heads to a divisor of num_heads.",
        )
        require(
            self.head_dim % 2 == 0 or self.positions != "rope",
            f"model.head_dim is {self.head_dim}: rotary positions need an even number.",
        )
        require(
            self.biases == tuple(name for name in ("qkv", "out", "mlp") if name in self.biases),
            f"model.biases is {list(self.biases)}: write each once, in the order qkv, out, mlp.",
        )
        require(
            set(self.window_pattern) <= {"L", "G"} and self.window_pattern != "",
            f"model.window_pattern is {self.window_pattern!r}: use letters L (local) and G "
            "(global), such as 'LLLLLG'.",
        )
        if self.attention_init == "induction":
            require(
                self.qkv_bias,
                "model.attention_init is 'induction', which requires 'qkv' in model.biases: add "
                "it, or set attention_init to 'normal'.",
            )
            wanted = {"positions": "rope", "qk_norm": True, "moe": None}
            for name, value in wanted.items():
                require(
                    getattr(self, name) == value,
                    f"model.attention_init is 'induction', which requires model.{name} = "
                    f"{value!r}: set that, or set attention_init to 'normal'.",
                )
            require(
                self.num_layers > 1,
                "model.attention_init is 'induction', which requires two layers, but "
                "model.num_layers is 1: add layers, or set attention_init to 'normal'.",
            )
        if self.sliding_window is not None:
            positive("model", self, "sliding_window")
        for name in ("attn_softcap", "logit_softcap", "attn_scale"):
            value = getattr(self, name)
            valid = value is None or 0 < value < math.inf
            require(valid, f"model.{name} is {value}: give a finite number above 0.")
        require(
            not (self.norm_plus_one and self.norm == "layernorm"),
            "model.norm_plus_one is True, which requires model.norm = 'rmsnorm': set one of them.",
        )
        if self.moe is not None:
            require(
                any(self.moe_layers),
                f"model.moe.dense_layers is {self.moe.dense_layers} and model.moe.every is "
                f"{self.moe.every}, so none of the {self.num_layers} layers has experts: lower "
                "one of them.",
            )

        if self.latent is not None:
            self._check_latent(self.latent)

    def _check_latent(self, latent: LatentConfig) -> None:
        require(
            latent.rope_dim < self.head_dim,
            f"model.latent.rope_dim is {latent.rope_dim}: it must be less than model.head_dim = "
            f"{self.head_dim}, of which it is the rotated part.",
        )
        wanted = {
            "num_kv_heads": self.num_heads, "positions": "rope", "qk_norm": False,
            "qkv_bias": False, "out_bias": False, "attention_init": "normal",
        }  # fmt: skip
        for name, value in wanted.items():
            require(
                getattr(self, name) == value,
                f"model.latent requires model.{name} = {value!r}, not {getattr(self, name)!r}.",
            )

    @property
    def qkv_bias(self) -> bool:
        """Whether queries, keys and values have biases."""
        return "qkv" in self.biases

    @property
    def out_bias(self) -> bool:
        """Whether the attention's output has a bias."""
        return "out" in self.biases

    @property
    def mlp_bias(self) -> bool:
        """Whether the MLP has biases."""
        return "mlp" in self.biases

    @property
    def moe_layers(self) -> tuple[bool, ...]:
        """For each layer, whether it has experts."""
        if self.moe is None:
            return (False,) * self.num_layers
        first, every = self.moe.dense_layers, self.moe.every
        places = (i - first for i in range(self.num_layers))
        return tuple(i >= 0 and i % every == every - 1 for i in places)

    @property
    def gated(self) -> bool:
        """Whether the MLP has a gate, a third matrix."""
        return self.activation in ("swiglu", "geglu", "clamped_swiglu")

    @property
    def rotary_dim(self) -> int:
        """Numbers of each head that are rotated."""
        return self.latent.rope_dim if self.latent else self.head_dim

    @property
    def value_dim(self) -> int:
        """Size of one value."""
        return self.latent.value_dim if self.latent else self.head_dim

    @property
    def windows(self) -> tuple[int | None, ...]:
        """Window of each layer in tokens; None where a layer attends to everything before it."""
        if self.sliding_window is None:
            return (None,) * self.num_layers
        pattern = self.window_pattern
        return tuple(
            self.sliding_window if pattern[i % len(pattern)] == "L" else None
            for i in range(self.num_layers)
        )
