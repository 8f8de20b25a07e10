"""How a run computes, optimises, splits, saves and evaluates."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from llm_jax.config.errors import positive, require
from llm_jax.config.extensions import check_name

Quantize = Literal["none", "int8", "fp8"]


@dataclass(frozen=True, kw_only=True)
class ComputeConfig:
    """How the architecture is executed. Nothing here changes the meaning of the parameters."""

    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """Dtype of activations and matmul operands. Reductions are float32. The dtypes of what is
    stored between steps are set by `optim`."""
    remat: Literal["none", "dots", "full", "offload"] = "full"
    """What the backward pass recomputes. `none`: nothing. `dots`: everything but matmul outputs.
    `full`: whole blocks. `offload`: whole blocks, whose inputs are kept in the host's memory."""
    accumulate: int = 1
    """Micro-batches per optimizer step, one after another; the step averages over them."""
    quantize: Quantize = "none"
    """Round the operands of the blocks' weight matmuls to 8 bits in the forward pass of training.
    Routed experts are not rounded. Needs the extra `quantize`."""
    scan_layers: bool = True
    """Compile one block and loop over the stacked layers. If False, every layer is written out."""
    attention: Literal["auto", "reference", "blockwise", "splash", "cudnn"] = "auto"
    """`auto`: `splash` on TPU and `cudnn` on GPU if they support the model, otherwise `blockwise`.
    `blockwise` skips blocks that are fully masked. `reference` computes all T×S scores."""
    loss_chunk: int = 512
    """Tokens per device whose logits exist at one time. It bounds the memory of the loss."""
    compiler: tuple[
        Literal["async_collectives", "collective_matmul", "scoped_vmem", "sparsecore"], ...
    ] = ()
    """Options of the TPU compiler beyond its defaults (`PURPOSES` in train/compiler.py)."""

    def __post_init__(self) -> None:
        positive("compute", self, "loss_chunk", "accumulate")
        require(
            not {"async_collectives", "sparsecore"} <= set(self.compiler),
            "compute.compiler has both async_collectives and sparsecore, but only one of them can "
            "do the all-gathers: remove the other.",
        )


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """The optimizer, with global-norm clipping and a schedule in steps."""

    kind: str = "adamw"
    """`adamw` (Loshchilov & Hutter 2019). `muon`: the blocks' matrices follow their orthogonalised
    momentum, scaled to AdamW's step sizes (Jordan et al. 2024, Liu et al. 2025); AdamW updates the
    rest. `adafactor`: second moments by row and column (Shazeer & Stern 2018). `schedule_free`:
    AdamW with an average over the steps in place of momentum and of learning rate decay (Defazio
    et al. 2024); the average is evaluated and exported. FILE.py:NAME: an optimizer of your own."""
    param_dtype: Literal["float32", "bfloat16"] = "float32"
    """Dtype of the matrices between steps. Norms, biases and routers are always float32. The
    update is always computed in float32, and rounded stochastically where it is stored in
    bfloat16."""
    grad_dtype: Literal["float32", "bfloat16"] = "float32"
    """Dtype of the matrices' gradients, and of their sum over micro-batches. With `bfloat16`, the
    gradient is taken with respect to a bfloat16 copy of the matrices, and fsdp gathers that
    copy."""
    moment_dtype: Literal["float32", "bfloat16"] = "float32"
    """Dtype of the first moment."""
    second_moment_dtype: Literal["float32", "bfloat16"] = "float32"
    """Dtype of the second moment."""
    learning_rate: float = 3e-4
    """Peak learning rate."""
    schedule: Literal["cosine", "wsd", "constant", "inverse_sqrt"] = "cosine"
    """Learning rate after the warm-up. `cosine`: decay over the whole run. `wsd`: constant, then
    linear decay over the last `decay_fraction` (Hu et al. 2024). `constant`: no decay;
    `schedule_free` requires it. `inverse_sqrt`: 1 over the root of the steps (Vaswani et al. 2017),
    as T5 and the original Transformer were trained."""
    warmup_steps: int | None = None
    """Steps of linear warm-up. None: a tenth of the run's steps, at most 100."""
    decay_fraction: float = 0.2
    """Fraction of all steps over which `wsd` decays."""
    final_fraction: float = 0.1
    """Learning rate at the last step, as a fraction of the peak."""
    b1: float = 0.9
    """`adamw` and `adafactor`: decay rate of the first moment. `schedule_free`: weight of the
    average in the parameters that gradients are taken at."""
    b2: float = 0.95
    """Decay rate of the second moment; `adafactor` has its own."""
    eps: float = 1e-8
    """Added to the root of the second moment; `adafactor` has its own."""
    weight_decay: float = 0.1
    """Decoupled weight decay, applied to matrices only: not to norms, biases or positions."""
    clip_norm: float = 1.0
    """Largest global norm of the gradient; a larger gradient is scaled down to it."""
    z_loss: float = 0.0
    """Weight of (log Z)², which keeps logits from drifting (PaLM, Chowdhery et al. 2022 §5)."""
    label_smoothing: float = 0.0
    """Share of a target's probability that is spread over all rows of the output matrix (Szegedy et
    al. 2016). What is reported stays the -log p of the targets."""
    spike_limit: float | None = 10.0
    """Skip a batch whose loss is more than this many robust standard deviations above the median
    of the last 128 accepted losses. None: no limit. A batch with a NaN or infinite loss or
    gradient is always skipped."""
    skip_limit: int = 5
    """Skipped steps in a row after which the run stops and goes back to an earlier checkpoint."""

    def __post_init__(self) -> None:
        check_name("optim.kind", self.kind)
        positive("optim", self, "learning_rate", "eps", "clip_norm", "skip_limit")
        if self.spike_limit is not None:
            positive("optim", self, "spike_limit")
        for name in ("b1", "b2", "decay_fraction", "final_fraction"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"optim.{name} is {value}: it must lie between 0 and 1.")
        for name in ("warmup_steps", "weight_decay", "z_loss"):
            value = getattr(self, name) or 0
            require(value >= 0, f"optim.{name} is {value}: it must not be negative.")
            require(value < math.inf, f"optim.{name} is {value}: it must be a finite number.")
        require(
            0 <= self.label_smoothing < 1,
            f"optim.label_smoothing is {self.label_smoothing}: give a share from 0 on and below 1.",
        )
        if self.kind == "schedule_free":
            self._check_schedule_free()

    def warmup(self, steps: int) -> int:
        """Steps of warm-up in a run of `steps` steps."""
        return min(100, steps // 10) if self.warmup_steps is None else self.warmup_steps

    def _check_schedule_free(self) -> None:
        end = "while optim.kind is 'schedule_free'"
        require(
            self.schedule == "constant",
            f"optim.schedule is {self.schedule!r} {end}, which averages instead of decaying: set "
            "schedule to 'constant'.",
        )
        require(self.b1 > 0, f"optim.b1 is {self.b1} {end}: it must be above 0.")
        require(
            self.param_dtype == "float32",
            f"optim.param_dtype is {self.param_dtype!r} {end}, whose average is a difference of "
            "two sets of parameters: set param_dtype to 'float32'.",
        )
        require(
            self.moment_dtype == "float32",
            f"optim.moment_dtype is {self.moment_dtype!r} {end}, which keeps no first moment: "
            "set moment_dtype to 'float32'; optim.second_moment_dtype may be 'bfloat16'.",
        )


@dataclass(frozen=True, kw_only=True)
class ParallelConfig:
    """Sizes of the mesh axes. Their product is the number of devices."""

    replica: int = 1
    """Splits the batch between slices. Gradients are summed over the data-centre network."""
    data: int = -1
    """Splits the batch; parameters are replicated. -1: all devices that the other axes leave."""
    fsdp: int = 1
    """Splits the batch and the parameters. Weights are gathered where they are used."""
    tensor: int = 1
    """Splits heads and the MLP width (Megatron-LM, Shoeybi et al. 2019). Between sub-layers it
    splits the sequence length (Korthikanti et al. 2022)."""
    context: int = 1
    """Splits the sequence length, inside layers too."""
    context_kind: Literal["ring", "gather"] = "ring"
    """`ring`: keys and values move around a ring (Liu et al. 2023). `gather`: they are gathered at
    once, which is cheap with few key/value heads (Llama 3, Grattafiori et al. 2024 §3.3.2)."""
    expert: int = 1
    """Splits the experts. For all other parameters it is one more fsdp axis."""
    pipeline: int = 1
    """Splits the layers into stages."""
    pieces: int | None = None
    """Pieces of a micro-batch that go through the stages one after another. None: one per
    stage."""
    rounds: int = 1
    """Times that a piece passes through all stages. Each stage holds this many groups of layers
    (Narayanan et al. 2021). More rounds: a smaller bubble, more messages."""

    def __post_init__(self) -> None:
        require(
            self.data > 0 or self.data == -1,
            f"parallel.data is {self.data}: give a number above 0, or -1 for all other devices.",
        )
        positive("parallel", self, "replica", "fsdp", "tensor", "context", "expert", "pipeline")
        positive("parallel", self, "rounds")
        if self.pieces is not None:
            positive("parallel", self, "pieces")
            require(
                self.pieces % self.pipeline == 0,
                f"parallel.pieces is {self.pieces}, which parallel.pipeline = "
                f"{self.pipeline} does not divide: make it a multiple of {self.pipeline}.",
            )


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """When training state is saved, and which checkpoints are kept."""

    every: int = 200
    """Steps between checkpoints. The last step is always saved."""
    keep_last: int = 2
    """Newest checkpoints to keep."""
    keep_every: int | None = None
    """Also keep every checkpoint whose step is a multiple of this. It must be a multiple of
    `every`."""
    local: str | None = None
    """Folder on each host's own disk for extra checkpoints between those in `out`. Use it when
    `out` is too slow for frequent saves. A replaced host loses it."""
    local_every: int | None = None
    """Steps between checkpoints in `local`. It must be less than `every`."""

    def __post_init__(self) -> None:
        positive("checkpoint", self, "every", "keep_last")
        require(
            (self.local is None) == (self.local_every is None),
            f"checkpoint.local is {self.local!r} and checkpoint.local_every is "
            f"{self.local_every!r}: set both or neither.",
        )
        if self.local_every is not None:
            positive("checkpoint", self, "local_every")
            require(
                self.local_every < self.every,
                f"checkpoint.local_every is {self.local_every}, but checkpoint.every is "
                f"{self.every}: local_every must be less.",
            )
        if self.keep_every is not None:
            positive("checkpoint", self, "keep_every")
            require(
                self.keep_every % self.every == 0,
                f"checkpoint.keep_every is {self.keep_every}, which is not a multiple of "
                f"checkpoint.every = {self.every}: change one of them.",
            )


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """Evaluation on held-out text during training."""

    every: int = 200
    """Steps between evaluations. The last step is always evaluated."""
    batches: int = 8
    """Batches of `data.batch_size` sequences, spread over the validation split. If it has fewer,
    all of it is used."""
    tasks: tuple[str, ...] = ()
    """Tasks of `llm-jax eval --tasks` that the model is scored on while it trains. Needs the extra
    `eval`."""
    tasks_every: int | None = None
    """Steps between scores of `tasks`. None: `every`. The last step is always scored."""
    task_limit: int | None = 100
    """Most examples of each task. None: all of them."""
    few_shot: int | None = None
    """Solved examples before each question. None: as each task says."""
    include: str | None = None
    """Folder with task files of your own, which `tasks` may name."""

    def __post_init__(self) -> None:
        positive("eval", self, "every", "batches")
        for name in ("tasks_every", "task_limit"):
            if getattr(self, name) is not None:
                positive("eval", self, name)
        shots = self.few_shot
        require(shots is None or shots >= 0, f"eval.few_shot is {shots}: it must not be negative.")
        twice = [name for name in dict.fromkeys(self.tasks) if self.tasks.count(name) > 1]
        require(not twice, f"eval.tasks names {twice and twice[0]!r} twice: name it once.")

    @property
    def scores_every(self) -> int | None:
        """Steps between scores of `tasks`; None if there are none."""
        return (self.tasks_every or self.every) if self.tasks else None
