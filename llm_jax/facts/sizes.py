"""Bytes of what training holds, from the architecture: state, activations, logits.

Letters as in `counts.py`.
"""

from __future__ import annotations

from llm_jax.config import ModelConfig, OptimConfig
from llm_jax.facts.counts import Remat, active_ffn_widths, block_parameters, parameters

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "int8": 1, "float8": 1}


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
    kept = ("router", "biases", "norms", "post_norms", "qk_norm", "activation")
    fixed = sum(part[name] for name in kept)
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
    model: ModelConfig,
    tokens: int,
    remat: Remat,
    dtype: str,
    *,
    tensor: int = 1,
    expert: int = 1,
) -> int:
    """Bytes per device that the forward pass keeps for the backward pass, for `tokens` per device,
    plus the `working_bytes` of one block.

    Per token and layer, with blockwise attention (no T×S scores are kept):

    * `full`: the block's input, D values in `dtype`. `offload`: nothing; the host keeps it.
    * `dots`: the same, and the outputs of the weight matmuls in `dtype`: q (N·H), k and v (2·K·H),
      o and down (2·D), up and gate (F or 2·F).
    * `none`: all of `working_bytes`.

    F is the total width of the experts that a token uses. Each of them adds the token's input and
    output row, 2·D. If `expert` devices share the experts, each has room for the rows of all of
    them. Widths that tensor parallelism splits are divided by `tensor`. So are arrays
    between sub-layers, because it splits their sequences (Korthikanti et al. 2022).
    """
    m, size = model, DTYPE_BYTES[dtype]
    q_width, kv_width = m.num_heads * m.head_dim, m.num_kv_heads * m.head_dim
    rows = expert * m.moe.top_k * sum(m.moe_layers) / m.num_layers if m.moe else 0.0
    ffn = sum(active_ffn_widths(m)) / m.num_layers
    ffn += rows * (expert - 1) / expert * m.moe.d_ff if m.moe else 0.0
    wide = 2 * ffn if m.gated else ffn
    working = working_bytes(model, tokens, dtype, tensor=tensor, expert=expert)
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


def working_bytes(
    model: ModelConfig, tokens: int, dtype: str, *, tensor: int = 1, expert: int = 1
) -> int:
    """Sum of `working_parts`."""
    return sum(working_parts(model, tokens, dtype, tensor=tensor, expert=expert).values())


def logits_bytes(model: ModelConfig, tokens: int, chunk: int | None, *, tensor: int = 1) -> int:
    """Bytes of float32 logits and their gradient that exist at one time.

    Args:
      chunk: tokens per chunk; None: all `tokens` at once.
    """
    alive = tokens if chunk is None else min(tokens, chunk)
    return int(2 * 4 * alive * model.vocab_size / tensor)
