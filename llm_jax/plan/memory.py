"""Bytes per device of one training step, part by part, before any compiler has seen it.

Parameters, gradients and moments have the dtypes of `OptimConfig`; compute runs in `dtype`.
Parameters, gradients and moments are split over fsdp × tensor, activations over the
batch axes, and inside of a block over tensor.
"""

from __future__ import annotations

from dataclasses import dataclass

from llm_jax.config import ModelConfig, OptimConfig
from llm_jax.plan.counts import (
    DTYPE_BYTES,
    Remat,
    activation_bytes,
    block_parameters,
    logits_bytes,
    state_bytes,
    total_parameters,
)

HEADROOM = 0.10
"""Share of a device's memory left free: compilers pad, and allocators fragment."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a step is split and executed. Sizes of the mesh axes multiply to the devices."""

    data: int
    fsdp: int
    tensor: int
    accumulate: int
    remat: Remat
    dtype: str

    @property
    def devices(self) -> int:
        return self.data * self.fsdp * self.tensor

    @property
    def batch_shards(self) -> int:
        return self.data * self.fsdp


def device_bytes(
    model: ModelConfig,
    layout: Layout,
    micro_tokens: int,
    loss_chunk: int,
    optim: OptimConfig | None = None,
) -> dict[str, int]:
    """Bytes per device by part.

    Args:
      micro_tokens: tokens of one micro-batch on one device.
      loss_chunk: tokens whose logits exist at one time.
      optim: what is stored, and in which dtypes; float32 AdamW by default.

    `updates` are what the optimizer makes of the gradients before it adds them. Gathered weights,
    in `dtype`, are those of two layers (the one that computes, and the one that is fetched) and of
    the unembedding; without recomputation the backward pass keeps those of every layer. With the
    logits stands the unembedding's float32 gradient, which each device adds up for itself over the
    chunks before it is exchanged.
    """
    shards = layout.fsdp * layout.tensor
    optim = optim or OptimConfig()
    state = {key: value // shards for key, value in state_bytes(model, optim).items()}
    state["updates"] = 4 * total_parameters(model) // shards
    blocks = block_parameters(model)
    head = model.vocab_size * model.d_model
    gathered = 0
    if layout.fsdp > 1 or layout.dtype != optim.param_dtype:
        held = blocks if layout.remat == "none" else 2 * blocks // model.num_layers
        gathered = (held + head) * DTYPE_BYTES[layout.dtype] // layout.tensor
    unsummed = 4 * head // layout.tensor if layout.batch_shards > 1 else 0
    return {
        **state,
        "gathered_weights": gathered,
        "activations": activation_bytes(
            model, micro_tokens, layout.remat, layout.dtype, tensor=layout.tensor
        ),
        "logits": logits_bytes(model, micro_tokens, loss_chunk, tensor=layout.tensor) + unsummed,
    }


def fits(parts: dict[str, int], capacity: float) -> bool:
    """Whether the parts leave `HEADROOM` of `capacity` bytes free."""
    return sum(parts.values()) <= (1 - HEADROOM) * capacity
