"""The architecture as data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from llm_jax.config.errors import positive, require
from llm_jax.config.model_checks import check_model
from llm_jax.config.rope import DynamicRope, LinearRope, Llama3Rope, LongRope, YarnRope


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
    router: Literal["softmax", "sigmoid"] = "softmax"
    """Turns scores into affinities: `softmax` over all experts, or a `sigmoid` for each expert
    (DeepSeek-V3)."""
    renormalise: bool = True
    """Divide the affinities of the chosen experts by their sum."""
    scale: float = 1.0
    """Factor on the output of the routed experts (DeepSeek-V2)."""
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
        for name in ("shared_d_ff", "dense_layers", "balance_loss", "balance_rate", "z_loss"):
            value = getattr(self, name)
            require(0 <= value < math.inf, f"model.moe.{name} is {value}: it must not be negative.")
        if self.capacity_factor is not None:
            positive("model.moe", self, "capacity_factor")


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
    activation: Literal["swiglu", "geglu", "gelu", "gelu_exact", "relu", "relu2", "xielu"] = (
        "swiglu"
    )
    """`swiglu` and `geglu` are gated (Shazeer 2020). The others have two matrices: `gelu` the tanh
    GELU of GPT-2, `gelu_exact` that of the error function, `relu2` the squared ReLU (So et al.
    2021), `xielu` an integral of the ELU with two learned numbers (Huang & Schlag 2024)."""
    norm: Literal["rmsnorm", "layernorm"] = "rmsnorm"
    """Kind of normalisation."""
    norm_eps: float = 1e-5
    """Added to the mean square (or variance) before the square root."""
    norm_weights: Literal["all", "scale", "none"] = "all"
    """What norms learn: `scale` is a LayerNorm without bias (Cohere), `none` a norm without
    parameters (OLMo)."""
    pre_norm: bool = True
    """Normalise the input of each sub-layer. False: only its output (OLMo 2), which requires
    `post_norm`."""
    post_norm: bool = False
    """Normalise the output of each sub-layer before the residual addition (Gemma 2)."""
    norm_plus_one: bool = False
    """Norms multiply by (1 + scale), with scale starting at 0 (Gemma, Nemotron)."""
    embed_norm: bool = False
    """Normalise the embedding (BLOOM)."""
    parallel_block: Literal["none", "one_norm", "two_norms"] = "none"
    """Attention and MLP read the same input, and are added to it together: after `one_norm` (GPT-J,
    Wang & Komatsuzaki 2021; PaLM), or after one of their own each (GPT-NeoX)."""
    qk_norm: bool = False
    """RMSNorm of queries and keys before RoPE (Qwen3)."""
    qk_norm_over: Literal["head", "width"] = "head"
    """What the norm of queries and keys is taken over: each head, or all of them together
    (OLMo 2)."""
    qk_norm_after_rope: bool = False
    """Normalise queries and keys after RoPE (Hunyuan)."""
    qkv_clip: float | None = None
    """Queries, keys and values are cut to [-clip, clip] (OLMo, MPT)."""
    positions: Literal["rope", "learned", "alibi"] = "rope"
    """Rotary positions, a learned table of `max_seq_len` rows, or scores that fall with the
    distance (ALiBi, Press et al. 2022)."""
    position_offset: int = 0
    """Rows of the learned table before that of position 0 (OPT has 2)."""
    rope_theta: float = 10_000.0
    """Base of the rotary frequencies."""
    rope_scaling: LinearRope | DynamicRope | Llama3Rope | YarnRope | LongRope | None = None
    """Frequency scaling for a longer context than that of pretraining."""
    rotary_fraction: float = 1.0
    """Share of each head, from its beginning, that is rotated (GPT-J, Wang & Komatsuzaki 2021)."""
    rope_local_theta: float | None = None
    """Base of the layers with a sliding window, which then have no scaling (Gemma 3). None: that of
    the others."""
    rope_pattern: str = "R"
    """Repeated over the layers: R rotary positions, N none (NoPE, Kazemnejad et al. 2023; SmolLM3:
    RRRN)."""
    biases: tuple[Literal["qkv", "out", "mlp", "unembed"], ...] = ()
    """Which matrices have biases: `qkv` queries, keys and values; `out` the attention's output;
    `mlp` those of the MLP; `unembed` the output matrix (GPT-J). In this order."""
    attention_init: Literal["normal", "induction"] = "normal"
    """`induction` starts the model with an induction head, so that a small model learns to copy
    early (`models/decoder/induction.py`). It requires RoPE, biases `qkv` and `qk_norm`."""
    tie_embeddings: bool = False
    """Use the embedding table as the output matrix too."""
    scale_embeddings: bool = False
    """Multiply the embedding by sqrt(d_model) (Gemma)."""
    embed_multiplier: float = 1.0
    """Factor on the embedding (Granite; µP, Yang et al. 2022)."""
    residual_multiplier: float = 1.0
    """Factor on what each sub-layer adds to the residual stream (Granite; MiniCPM, Hu et al.
    2024)."""
    logit_multiplier: float = 1.0
    """Factor on the logits (Cohere; Granite and MiniCPM divide by its inverse)."""
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

    def __post_init__(self) -> None:
        check_model(self)

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
        return self.activation in ("swiglu", "geglu")

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

    @property
    def rotary_dim(self) -> int:
        """Numbers of each head that are rotated; their pairs are (i, i + rotary_dim/2)."""
        return int(self.head_dim * self.rotary_fraction)

    @property
    def rotations(self) -> tuple[Literal["global", "local"] | None, ...]:
        """Rotary table of each layer: `local` is that of `rope_local_theta`; None: no positions."""
        pattern, local = self.rope_pattern, self.rope_local_theta is not None
        return tuple(
            None
            if pattern[i % len(pattern)] == "N"
            else "local"
            if local and window is not None
            else "global"
            for i, window in enumerate(self.windows)
        )

    @property
    def layer_period(self) -> int:
        """After how many layers windows and rotations repeat."""
        windows = len(self.window_pattern) if self.sliding_window else 1
        return math.lcm(windows, len(self.rope_pattern))
