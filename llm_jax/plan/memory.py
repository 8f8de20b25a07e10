"""Bytes per device of one training step, by part, estimated without a compiler.

Parameters, gradients and moments have the dtypes of `OptimConfig`, and are split over fsdp ×
tensor; those of the blocks also over the stages of a pipeline. Compute runs in `dtype`. Activations
are split over the batch axes, and inside a block over tensor too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from llm_jax.config import ModelConfig, OptimConfig, RunConfig
from llm_jax.config.training import Quantize
from llm_jax.facts.counts import Remat, block_parameters, parameters, total_parameters
from llm_jax.facts.sizes import (
    DTYPE_BYTES,
    activation_bytes,
    logits_bytes,
    state_bytes,
    working_bytes,
    working_parts,
)

Dtype = Literal["float32", "bfloat16"]
HEADROOM = 0.10
"""Share of a device's memory to keep free, because compilers pad and allocators fragment."""
SLACK = {"sequences": 10 / 3, "between": 1.0, "inside": 1.3, "routed": 1.0}
"""Memory that the TPU compiler uses in the backward pass of a block, as a multiple of what JAX
saves to differentiate it. It also holds the gradients of these arrays, and sequences on their way
to and from the other devices of `tensor`. Fitted to the nine programs of docs/scale.md."""

PIPELINE_SLACK = 2.6
"""The same for the backward pass of a whole pipeline: 1.2, 2.2 and 2.6 in three programs of
qwen3_0_6b on v5e-16 with 4 stages (docs/log.md). The most of them, since they do not agree."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a step is split and executed. The product of data, fsdp, tensor and pipeline is the
    number of devices."""

    data: int
    fsdp: int
    tensor: int
    accumulate: int
    remat: Remat
    dtype: str
    expert: int = 1
    """The factor of `fsdp` that splits whole experts; their tokens are gathered over it."""
    context: int = 1
    """The factor of `data` that splits the sequence length; keys are gathered over it."""
    pipeline: int = 1
    """Stages of layers."""
    pieces: int = 1
    """Pieces of a micro-batch that go through the stages one after another."""
    rounds: int = 1
    """Times that a piece passes through all stages."""
    eight_bit: float = 0.0
    """Share of the blocks' matmuls whose operands have 8 bits: a third if only the forward pass
    rounds them. Routed experts are not rounded."""
    params: Dtype = "float32"
    """Dtype of the matrices between steps."""
    moments: Dtype = "float32"
    """Dtype of the optimizer's moments."""
    gradients: Dtype = "float32"
    """Dtype of the gradients."""

    @property
    def devices(self) -> int:
        """Number of devices."""
        return self.data * self.fsdp * self.tensor * self.pipeline

    @property
    def mesh(self) -> dict[str, int]:
        """Mesh axis → its size. The product is the devices."""
        return {
            "data": self.data // self.context,
            "fsdp": self.fsdp // self.expert,
            "tensor": self.tensor,
            "expert": self.expert,
            "context": self.context,
            "pipeline": self.pipeline,
        }

    @property
    def bubble(self) -> float:
        """Idle time of a stage, relative to its work: of M pieces in R rounds through S stages,
        (S - 1)/(M·R) (Narayanan et al. 2021, §2.2)."""
        return (self.pipeline - 1) / (self.pieces * self.rounds)

    @property
    def token_shards(self) -> int:
        """Number of parts that the tokens of a batch are split into."""
        return self.data * self.fsdp

    @property
    def batch_shards(self) -> int:
        """Number of parts that the sequences of a batch are split into."""
        return self.token_shards // self.context


def eight_bit(quantize: Quantize) -> float:
    """Share of the blocks' matmuls with 8-bit operands: the forward pass has one of three."""
    return 0.0 if quantize == "none" else 1 / 3


def layout_of(config: RunConfig, devices: int) -> Layout:
    """The layout of a run on so many devices."""
    parallel, compute, optim = config.parallel, config.compute, config.optim
    fsdp = parallel.fsdp * parallel.expert
    pieces = (parallel.pieces or parallel.pipeline) if parallel.pipeline > 1 else 1
    return Layout(
        data=devices // (fsdp * parallel.tensor * parallel.pipeline),
        fsdp=fsdp,
        tensor=parallel.tensor,
        accumulate=compute.accumulate,
        remat=compute.remat,
        dtype=compute.dtype,
        expert=parallel.expert,
        context=parallel.context,
        pipeline=parallel.pipeline,
        pieces=pieces,
        rounds=parallel.rounds,
        eight_bit=eight_bit(compute.quantize),
        params=optim.param_dtype,
        moments=optim.moment_dtype,
        gradients=optim.grad_dtype,
    )


def device_bytes(
    model: ModelConfig,
    layout: Layout,
    micro_tokens: int,
    loss_chunk: int,
    optim: OptimConfig | None = None,
) -> dict[str, int]:
    """Bytes per device by part, at the point of the step that needs the most.

    Parameters and optimizer moments always exist. Three points of the step are compared, and the
    parts of the largest are returned. A part that does not exist at that point is 0.

    * The loss: what the blocks keep, the logits of a chunk, the gathered unembedding in `dtype`,
      and its float32 gradient, which each device sums before the exchange.
    * The backward pass: what the blocks keep, the gradients, and the block being differentiated.
      Gathered weights are those of two blocks (one computes while the next is fetched), or of all
      blocks without recomputation.
    * The update: the gradients, and the optimizer's updates before they are added.

    Args:
      micro_tokens: tokens of one micro-batch on one device.
      loss_chunk: tokens whose logits exist at one time.
      optim: optimizer and dtypes of the state; default: AdamW with the dtypes of `layout`.
    """
    shards = layout.fsdp * layout.tensor
    optim = optim or OptimConfig(
        param_dtype=layout.params,
        moment_dtype=layout.moments,
        second_moment_dtype=layout.moments,
        grad_dtype=layout.gradients,
    )
    in_blocks = block_parameters(model) / total_parameters(model)
    held = (1 - in_blocks + in_blocks / layout.pipeline) / shards
    state = {key: int(value * held) for key, value in state_bytes(model, optim).items()}
    grads = state.pop("grads")
    if layout.accumulate > 1:  # the sum over micro-batches exists besides the new gradients
        state["summed_grads"] = grads
    head = model.vocab_size * model.d_model
    cast = layout.dtype != optim.param_dtype
    size = DTYPE_BYTES[layout.dtype]
    # The device's own parts of all layers are cast before the scan.
    own = int(total_parameters(model) * size * held) if cast else 0
    gathers = layout.fsdp > 1 or cast
    unsummed = 4 * head // layout.tensor if layout.batch_shards > 1 else 0
    split = {"tensor": layout.tensor, "expert": layout.expert}
    piece = micro_tokens // layout.pieces
    at_ends = micro_tokens // layout.pipeline  # before and after the blocks, stages share the batch
    working = working_parts(model, piece, layout.dtype, context=layout.context, **split)
    kept = activation_bytes(model, micro_tokens, layout.remat, layout.dtype, **split)
    kept -= working_bytes(model, micro_tokens, layout.dtype, **split)
    # A stage keeps what its layers need, also in the iterations in which it is idle.
    kept = int(kept / layout.pipeline * (1 + layout.bubble))
    nothing = dict.fromkeys(("grads", "updates", "gathered_weights", "activations", "logits"), 0)
    loss = {
        "gathered_weights": own + gathers * size * head // layout.tensor,
        "activations": kept,
        "logits": logits_bytes(model, at_ends, loss_chunk, tensor=layout.tensor)
        + unsummed
        + 2 * size * model.d_model * at_ends,
    }
    backward = {
        "grads": grads,
        "gathered_weights": own + gathers * _gathered(model, layout),
        "activations": kept + int(sum(SLACK[part] * held for part, held in working.items())),
    }
    if layout.pipeline > 1:
        backward = {part: int(PIPELINE_SLACK * held) for part, held in backward.items()}
    update = {"grads": grads, "updates": int(4 * total_parameters(model) * held)}
    largest = max((loss, backward, update), key=lambda parts: sum(parts.values()))
    return {**state, **nothing, **largest}


def _gathered(model: ModelConfig, layout: Layout) -> int:
    """Bytes of gathered weights in the backward pass; `tensor` and `expert` still split them."""
    experts = parameters(model)["experts"]
    blocks = block_parameters(model) - experts + experts // layout.expert
    two = 2 * blocks // model.num_layers
    held = blocks // layout.pipeline if layout.remat == "none" else two
    return held * DTYPE_BYTES[layout.dtype] // layout.tensor


def fits(parts: dict[str, int], capacity: float) -> bool:
    """Whether the parts leave the share `HEADROOM` of `capacity` (bytes) free."""
    return sum(parts.values()) <= (1 - HEADROOM) * capacity
