"""Exact counts of a model from its architecture: parameters, FLOPs per token, bytes.

Letters: T sequence length, D model width, F ffn width, N query heads, K key/value heads, H head
size, L layers, V vocabulary, E experts. A multiply-add is 2 FLOPs. Only matmuls are counted, as in
Kaplan et al. 2020 (table 1) and Chowdhery et al. 2022 (PaLM, appendix B). The embedding lookup is
not a matmul, so it counts as 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from llm_jax.config import ModelConfig, OptimConfig, require

Remat = Literal["none", "dots", "full", "offload"]
NEWTON_SCHULZ_STEPS = 5
DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "int8": 1, "float8": 1}


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
    unembedding: 0 if tied.
    """
    require_counted(model)
    m, moe = model, model.moe
    sparse = sum(m.moe_layers)
    q_width, kv_width = m.num_heads * m.head_dim, m.num_kv_heads * m.head_dim
    matrices = 3 if m.gated else 2
    norm = m.d_model * (2 if m.norm == "layernorm" else 1)
    biases = 0
    if m.qkv_bias:
        biases += q_width + 2 * kv_width
    if m.out_bias:
        biases += m.d_model
    if m.mlp_bias:
        biases += (matrices - 1) * m.d_ff + m.d_model
    return {
        "embedding": m.vocab_size * m.d_model,
        "positions": m.max_seq_len * m.d_model if m.positions == "learned" else 0,
        "attention": m.num_layers * 2 * m.d_model * (q_width + kv_width),
        "mlp": (m.num_layers - sparse) * matrices * m.d_model * m.d_ff,
        "experts": sparse * matrices * m.d_model * moe.experts * moe.d_ff if moe else 0,
        "shared_experts": sparse * matrices * m.d_model * moe.shared_d_ff if moe else 0,
        "router": sparse * moe.experts * (m.d_model + (moe.balance_rate > 0)) if moe else 0,
        "biases": m.num_layers * biases,
        "norms": m.num_layers * 2 * norm + norm,
        "post_norms": m.num_layers * 2 * norm if m.post_norm else 0,
        "qk_norm": m.num_layers * 2 * m.head_dim if m.qk_norm else 0,
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

    @property
    def train_full(self) -> float:
        """`train` with non-causal attention: PaLM's 6N + 12·L·N·H·T (appendix B)."""
        return 3 * (self.projections + self.attention_full + self.unembedding)

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


def state_bytes(model: ModelConfig, optim: OptimConfig) -> dict[str, int]:
    """Bytes of parameters, gradients and optimizer moments, before any sharding.

    Norms, biases and routers are always float32. Each parameter has two moments, except:

    * `muon`: the blocks' matrices have only the first moment.
    * `adafactor`: the second moment has only rows and columns. With sides of 128 or more, that is
      at most 1/64 of the parameters.
    * `schedule_free`: the iterate z takes the place of the first moment.
    """
    part = parameters(model)
    total = sum(part.values())
    fixed = sum(part[name] for name in ("router", "biases", "norms", "post_norms", "qk_norm"))
    first = DTYPE_BYTES[optim.moment_dtype]
    second = DTYPE_BYTES[optim.second_moment_dtype]
    moe = model.moe
    biases = sum(model.moe_layers) * moe.experts if moe and moe.balance_rate else 0
    moved = total - biases  # balancing biases have no moments
    seconds = moved
    if optim.kind == "muon":
        seconds -= block_parameters(model) - part["router"]
    elif optim.kind == "adafactor":
        seconds = moved // 64
    return {
        "params": fixed * 4 + (total - fixed) * DTYPE_BYTES[optim.param_dtype],
        "grads": fixed * 4 + (total - fixed) * DTYPE_BYTES[optim.grad_dtype],
        "moments": moved * first + seconds * second,  # z of `schedule_free` is float32 too
    }


def activation_bytes(
    model: ModelConfig, tokens: int, remat: Remat, dtype: str, *, tensor: int = 1
) -> int:
    """Bytes per device that the forward pass keeps for the backward pass, for `tokens` per device,
    plus the `working_bytes` of one block.

    Per token and layer, with blockwise attention (no T×S scores are kept):

    * `full`: the block's input, D values in `dtype`. `offload`: nothing; the host keeps it.
    * `dots`: the same, and the outputs of the weight matmuls in `dtype`: q (N·H), k and v (2·K·H),
      o and down (2·D), up and gate (F or 2·F).
    * `none`: all of `working_bytes`.

    F is the total width of the experts that a token uses. Each of them adds the token's input and
    output row, 2·D. Widths that tensor parallelism splits are divided by `tensor`. So are arrays
    between sub-layers, because it splits their sequences (Korthikanti et al. 2022).
    """
    m, size = model, DTYPE_BYTES[dtype]
    q_width, kv_width = m.num_heads * m.head_dim, m.num_kv_heads * m.head_dim
    rows = m.moe.top_k * sum(m.moe_layers) / m.num_layers if m.moe else 0.0
    ffn = sum(active_ffn_widths(m)) / m.num_layers
    wide = 2 * ffn if m.gated else ffn
    working = working_bytes(model, tokens, dtype, tensor=tensor)
    between = 3 * m.d_model / tensor + rows * m.d_model
    dots = size * (between + (q_width + 2 * kv_width + wide) / tensor)
    kept = {"dots": dots, "full": size * m.d_model / tensor, "offload": 0.0}
    if remat == "none":
        return (m.num_layers + 1) * working
    return int(tokens * m.num_layers * kept[remat]) + working


def working_parts(
    model: ModelConfig,
    tokens: int,
    dtype: str,
    *,
    tensor: int = 1,
    expert: int = 1,
    context: int = 1,
) -> dict[str, int]:
    """Bytes per device that JAX saves to differentiate one block, for `tokens` per device, by part.

    * `sequences`: 3·D in `dtype`, for all tokens, even if `tensor` splits sequences between
      sub-layers.
    * `between`: 4·D float32 (two norms).
    * `inside`: in `dtype`, q and the attention's output (2·N·H), k and v (2·K·H), and 6·F. A
      qk-norm adds its inputs twice in float32. If `context` devices share a sequence, each gathers
      its k and v, and their gradients.
    * `routed`: the rows that experts read and write. If `expert` devices share the experts, each
      has the rows of all of them.
    """
    m, size = model, DTYPE_BYTES[dtype]
    q_width, kv_width = m.num_heads * m.head_dim, m.num_kv_heads * m.head_dim
    inside = size * (2 * q_width + 2 * kv_width + 6 * sum(active_ffn_widths(m)) / m.num_layers)
    if m.qk_norm:
        inside += 8 * (q_width + kv_width)
    if context > 1:
        inside += size * 4 * kv_width * context
    routed = 0.0
    if m.moe:
        wide = 6 * (expert - 1) * m.moe.d_ff / tensor
        chosen = m.moe.top_k * sum(m.moe_layers) / m.num_layers
        routed = size * chosen * (2 * expert * m.d_model + wide)
    parts = {
        "sequences": size * 3 * m.d_model,
        "between": 16 * m.d_model / tensor,
        "inside": inside / tensor,
        "routed": routed,
    }
    return {part: int(tokens * each) for part, each in parts.items()}


def working_bytes(model: ModelConfig, tokens: int, dtype: str, *, tensor: int = 1) -> int:
    """Sum of `working_parts`."""
    return sum(working_parts(model, tokens, dtype, tensor=tensor).values())


def logits_bytes(model: ModelConfig, tokens: int, chunk: int | None, *, tensor: int = 1) -> int:
    """Bytes of float32 logits and their gradient that exist at one time.

    Args:
      chunk: tokens per chunk; None: all `tokens` at once.
    """
    alive = tokens if chunk is None else min(tokens, chunk)
    return int(2 * 4 * alive * model.vocab_size / tensor)


def kv_cache_bytes(model: ModelConfig, seq_len: int, batch: int, dtype: str = "bfloat16") -> int:
    """Bytes of the KV cache: 2·S·L·K·H values per sequence. A sliding-window layer keeps at most
    its window."""
    kept = sum(min(seq_len, window or seq_len) for window in model.windows)
    return 2 * kept * model.num_kv_heads * model.head_dim * DTYPE_BYTES[dtype] * batch
