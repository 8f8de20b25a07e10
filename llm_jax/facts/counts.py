"""Exact counts of a model from its architecture: parameters and FLOPs per token.

Letters: T sequence length, D model width, F ffn width, N query heads, K key/value heads, H head
size, L layers, V vocabulary, E experts. A multiply-add is 2 FLOPs. Only matmuls are counted, as in
Kaplan et al. 2020 (table 1) and Chowdhery et al. 2022 (PaLM, appendix B). The embedding lookup is
not a matmul, so it counts as 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from llm_jax.config import ModelConfig, require

Remat = Literal["none", "dots", "full", "offload"]
NEWTON_SCHULZ_STEPS = 5


def require_counted(model: ModelConfig) -> None:
    """Raises `ConfigError` for a family of your own, whose arrays and FLOPs are not known here."""
    require(
        model.kind == "decoder",
        f"model.kind is {model.kind!r}: only a 'decoder' can be counted and planned.",
    )


def parameters(model: ModelConfig) -> dict[str, int]:
    """Parameters by part; their sum is the size of the real parameter tree.

    attention: L·(2·D·N·H + 2·D·K·H). mlp: 3·D·F (gated) or 2·D·F for each dense layer. experts: the
    same for each expert of each layer with experts. router: D·E, and E for the balancing bias.
    unembedding: 0 if tied. activation: two numbers of each xIELU.
    """
    require_counted(model)
    m, moe = model, model.moe
    sparse = sum(m.moe_layers)
    q_width, kv_width = m.num_heads * m.head_dim, m.num_kv_heads * m.head_dim
    matrices = 3 if m.gated else 2
    vectors = 2 if m.norm == "layernorm" and m.norm_weights == "all" else 1
    norm = 0 if m.norm_weights == "none" else m.d_model * vectors
    before = 0 if not m.pre_norm else 1 if m.parallel_block == "one_norm" else 2
    normed = 2 * m.head_dim if m.qk_norm_over == "head" else q_width + kv_width
    biases = 0
    if m.qkv_bias:
        biases += q_width + 2 * kv_width
    if m.out_bias:
        biases += m.d_model
    if m.mlp_bias:
        biases += (matrices - 1) * m.d_ff + m.d_model
    return {
        "embedding": m.vocab_size * m.d_model,
        "positions": (m.max_seq_len + m.position_offset) * m.d_model
        if m.positions == "learned"
        else 0,
        "attention": m.num_layers * 2 * m.d_model * (q_width + kv_width),
        "mlp": (m.num_layers - sparse) * matrices * m.d_model * m.d_ff,
        "experts": sparse * matrices * m.d_model * moe.experts * moe.d_ff if moe else 0,
        "shared_experts": sparse * matrices * m.d_model * moe.shared_d_ff if moe else 0,
        "router": sparse * moe.experts * (m.d_model + (moe.balance_rate > 0)) if moe else 0,
        "biases": m.num_layers * biases + m.vocab_size * ("unembed" in m.biases),
        "norms": (m.num_layers * before + 1 + m.embed_norm) * norm,
        "post_norms": m.num_layers * 2 * norm if m.post_norm else 0,
        "qk_norm": m.num_layers * normed if m.qk_norm and m.norm_weights != "none" else 0,
        "activation": (m.num_layers - sparse) * 2 if m.activation == "xielu" else 0,
        "unembedding": 0 if m.tie_embeddings else m.d_model * m.vocab_size,
    }


def total_parameters(model: ModelConfig) -> int:
    """All parameters of the model."""
    return sum(parameters(model).values())


def active_parameters(model: ModelConfig) -> int:
    """Parameters that one token uses: of the experts in a layer, only the `top_k` chosen ones."""
    if model.moe is None:
        return total_parameters(model)
    experts = parameters(model)["experts"]
    return total_parameters(model) - experts + experts // model.moe.experts * model.moe.top_k


def non_embedding_parameters(model: ModelConfig) -> int:
    """Active parameters without token embedding, learned positions and unembedding (the N of Kaplan
    et al. 2020)."""
    part = parameters(model)
    return active_parameters(model) - part["embedding"] - part["positions"] - part["unembedding"]


def block_parameters(model: ModelConfig) -> int:
    """Weights of all layers, without norms and biases."""
    part = parameters(model)
    names = ("attention", "mlp", "experts", "shared_experts", "router")
    return sum(part[name] for name in names)


def active_ffn_widths(model: ModelConfig) -> list[int]:
    """For each layer, the total width of the MLPs that a token passes through."""
    moe = model.moe
    sparse = moe.top_k * moe.d_ff + moe.shared_d_ff if moe else 0
    return [sparse if experts else model.d_ff for experts in model.moe_layers]


def mean_keys(seq_len: int, window: int | None) -> float:
    """Mean number of keys that a query sees: (T+1)/2 with the causal mask, fewer with a window.

    Position i sees min(i, W) keys. The mean over i = 1…T is W·(T − (W − 1)/2)/T for W ≤ T.
    """
    seen = seq_len if window is None else min(window, seq_len)
    return seen * (seq_len - (seen - 1) / 2) / seq_len


@dataclass(frozen=True, kw_only=True)
class TokenFlops:
    """FLOPs per token of one forward pass, by part; `train` and `executed` add the backward."""

    projections: float
    """2 × the weights of q, k, v, o and the MLP of every layer; of experts, the chosen ones."""
    attention: float
    """Scores and values: 4·N·H·keys per layer, for the keys that the causal mask keeps."""
    attention_full: float
    """The same if all T keys are computed and then masked (no block is skipped)."""
    unembedding: float
    """2·D·V, tied or not."""
    last: float
    """The part of `projections` in the last matmul of each block, 2·F·D per layer. A recomputed
    block can skip it, because its gradient needs only its input. It is 0 with a post-norm, which
    reads its output, and for routed experts, because the router's gradient reads their output."""
    experts: float
    """The part of `projections` in routed experts."""
    scores: float
    """Number of attention scores per token (not FLOPs): N·keys, summed over the layers."""
    six_n: float
    """6 × the active parameters, for the rule of thumb C = 6·N·D beside the exact count."""

    @property
    def forward(self) -> float:
        """FLOPs per token of one forward pass."""
        return self.projections + self.attention + self.unembedding

    @property
    def train(self) -> float:
        """Forward and backward (twice the forward) FLOPs per token: the numerator of MFU."""
        return 3 * self.forward

    def recomputed(self, remat: Remat) -> float:
        """FLOPs per token that the backward pass repeats.

        Blockwise attention always computes its scores again in the backward pass: half of its
        forward FLOPs (FlashAttention, Dao et al. 2022, algorithm 4). `full` also recomputes each
        block, except its last matmul. `dots` keeps the outputs of weight matmuls and recomputes
        attention. `offload` recomputes the same as `full`.
        """
        return {
            "none": 0.5 * self.attention,
            "dots": 1.5 * self.attention,
            "full": 1.5 * self.attention + self.projections - self.last,
            "offload": 1.5 * self.attention + self.projections - self.last,
        }[remat]

    def executed_attention(self, remat: Remat) -> float:
        """The part of `executed` that is scores and values."""
        again = 0.5 if remat == "none" else 1.5
        return (3 + again) * self.attention

    def executed_experts(self, remat: Remat) -> float:
        """The part of `executed` in routed experts."""
        return (3 + (remat in ("full", "offload"))) * self.experts

    def executed(self, remat: Remat) -> float:
        """FLOPs per token that the hardware executes: the numerator of HFU."""
        return self.train + self.recomputed(remat)


def token_flops(model: ModelConfig, seq_len: int) -> TokenFlops:
    """FLOPs per token in sequences of `seq_len` tokens."""
    m = model
    biases = sum(m.moe_layers) * m.moe.experts if m.moe and m.moe.balance_rate else 0
    idle = total_parameters(m) - active_parameters(m)
    ends = m.num_layers * m.d_ff - sum(m.moe_layers) * m.d_ff
    if m.moe:
        ends += sum(m.moe_layers) * m.moe.shared_d_ff
    scores = m.num_heads * sum(mean_keys(seq_len, window) for window in m.windows)
    return TokenFlops(
        projections=2.0 * (block_parameters(m) - biases - idle),
        attention=4.0 * m.head_dim * scores,
        attention_full=4.0 * m.num_heads * m.head_dim * seq_len * m.num_layers,
        unembedding=2.0 * m.d_model * m.vocab_size,
        last=0.0 if m.post_norm else 2.0 * ends * m.d_model,
        experts=2.0 * (active_parameters(m) - total_parameters(m) + parameters(m)["experts"]),
        scores=scores,
        six_n=6.0 * active_parameters(m),
    )


def update_flops(model: ModelConfig, optimizer: str) -> int:
    """FLOPs of the optimizer's matmuls in one step: 0 except for `muon`.

    Muon orthogonalises each matrix of the blocks in 5 Newton-Schulz steps (Jordan et al. 2024).
    Each step computes XXᵀ, its square, and the product of both with X: 4·a²·b + 2·a³ for a matrix
    a x b, a <= b.
    """
    if optimizer != "muon":
        return 0
    m, moe = model, model.moe
    sparse = sum(m.moe_layers)
    gates = 3 if m.gated else 2
    width, kv_width = m.num_heads * m.head_dim, m.num_kv_heads * m.head_dim
    others = {width: 2 * m.num_layers}
    for size, count in (
        (kv_width, 2 * m.num_layers),
        (m.d_ff, gates * (m.num_layers - sparse)),
        (moe.d_ff if moe else 0, gates * sparse * moe.experts if moe else 0),
        (moe.shared_d_ff if moe else 0, gates * sparse),
    ):
        others[size] = others.get(size, 0) + count
    total = 0
    for size, count in others.items():
        a, b = sorted((size, m.d_model))
        total += count * NEWTON_SCHULZ_STEPS * (4 * a * a * b + 2 * a**3)
    return total
