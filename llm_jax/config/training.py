"""How a run computes, reads, optimises, splits, saves and evaluates."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from llm_jax.config.errors import positive, require


@dataclass(frozen=True, kw_only=True)
class ComputeConfig:
    """How the architecture is executed; none of it changes what the parameters mean."""

    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """Dtype of activations and matmul operands; reductions are float32, and what is stored between
    steps is said by `optim`."""
    remat: Literal["none", "dots", "full", "offload"] = "full"
    """What the backward pass recomputes: nothing, all but matmul outputs, or whole blocks. With
    `offload` it recomputes whole blocks too, and their inputs wait in the host's memory."""
    quantize: Literal["none", "int8", "fp8"] = "none"
    """Rounds the operands of the blocks' weight matmuls in the forward pass of training, all but
    those of routed experts; needs the extra `quantize`."""
    scan_layers: bool = True
    """One compiled block looped over the stacked layers, or every layer written out."""
    attention: Literal["auto", "reference", "blockwise", "splash", "cudnn"] = "auto"
    """`auto`: `splash` on TPU, `cudnn` on GPU, where they take the model, otherwise `blockwise`,
    which skips blocks that the mask empties; `reference` forms all T×S scores."""
    loss_chunk: int = 512
    """Tokens whose logits exist at one time per device; bounds the memory of the loss."""
    compiler: tuple[
        Literal["async_collectives", "collective_matmul", "scoped_vmem", "sparsecore"], ...
    ] = ()
    """What the TPU compiler is asked for beyond its defaults (`PURPOSES` in train/platform.py)."""

    def __post_init__(self) -> None:
        positive("compute", self, "loss_chunk")
        require(
            not {"async_collectives", "sparsecore"} <= set(self.compiler),
            "compute.compiler names async_collectives and sparsecore, and one of them takes the "
            "all-gathers: leave the other out.",
        )


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What the model reads: a dataset folder that `llm-jax data build` wrote."""

    path: str = "data/stdlib"
    seq_len: int = 1024
    batch_size: int = 8
    """Sequences per optimizer step over all hosts and accumulation steps."""
    ramp_from: int | None = None
    """Sequences of the first step; doubled in equal parts of `ramp_steps` up to `batch_size`."""
    ramp_steps: int = 0
    """Steps with smaller batches than `batch_size`."""
    seed: int = 0
    """Seed of the order; the batch of a step depends on this seed and the step alone."""

    def __post_init__(self) -> None:
        positive("data", self, "seq_len", "batch_size")
        start, doublings = self.ramp_from, self._doublings
        if start is None:
            require(
                self.ramp_steps == 0,
                f"data.ramp_steps is {self.ramp_steps}, and data.ramp_from is not set: say with "
                "how many sequences to begin.",
            )
            return
        positive("data", self, "ramp_from")
        require(
            doublings > 0 and start << doublings == self.batch_size,
            f"data.ramp_from is {start}, which doublings do not lead to data.batch_size = "
            f"{self.batch_size}: take its half, quarter, eighth …",
        )
        require(
            self.ramp_steps >= doublings,
            f"data.ramp_steps is {self.ramp_steps}, fewer than the {doublings} doublings from "
            f"{start} to {self.batch_size} sequences: raise it.",
        )

    @property
    def _doublings(self) -> int:
        return (self.batch_size // max(self.ramp_from or self.batch_size, 1)).bit_length() - 1

    @property
    def stages(self) -> tuple[tuple[int, int], ...]:
        """(step, sequences): how many a batch holds from that step (counted from 0) on."""
        doublings = self._doublings
        return tuple(
            (self.ramp_steps * k // max(doublings, 1), self.batch_size >> (doublings - k))
            for k in range(doublings + 1)
        )

    def sequences(self, steps: int) -> int:
        """Sequences that the first `steps` steps read."""
        (_, start), *doubled = self.stages
        added = [size // 2 * max(steps - first, 0) for first, size in doubled]
        return start * steps + sum(added)


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """The optimizer, with global-norm clipping and a schedule in steps."""

    kind: Literal["adamw", "muon", "adafactor", "schedule_free"] = "adamw"
    """`adamw` (Loshchilov & Hutter 2019). `muon`: the blocks' matrices move along their
    orthogonalised momentum, scaled to AdamW's step sizes (Jordan et al. 2024, Liu et al. 2025), all
    else by AdamW. `adafactor`: second moments by row and column (Shazeer & Stern 2018).
    `schedule_free`: AdamW whose average over the steps takes the place of momentum and of a decay
    of the learning rate (Defazio et al. 2024); the average is what is evaluated and exported."""
    param_dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the matrices between steps; norms, biases and routers are always float32. The update is
    computed in float32 whatever the state is stored in, and rounded stochastically to bfloat16."""
    grad_dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the matrices' gradients, and of their sum over micro-batches. `bfloat16` differentiates by
    a bfloat16 copy of the matrices, which is also what is gathered over fsdp."""
    moment_dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the first moment."""
    second_moment_dtype: Literal["float32", "bfloat16"] = "float32"
    learning_rate: float = 3e-4
    schedule: Literal["cosine", "wsd", "constant"] = "cosine"
    """`wsd`: warm-up, stable, linear decay over the last `decay_fraction` (Hu et al. 2024).
    `constant`: warm-up alone; `schedule_free` goes with no other."""
    warmup_steps: int = 100
    decay_fraction: float = 0.2
    final_fraction: float = 0.1
    """Learning rate at the last step as a fraction of the peak."""
    b1: float = 0.9
    b2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.1
    """Applied to matrices only: not to norms, biases or positions."""
    clip_norm: float = 1.0
    accumulate: int = 1
    """Micro-batches that one optimizer step averages over."""
    z_loss: float = 0.0
    """Weight of (log Z)², which keeps logits from drifting (PaLM, Chowdhery et al. 2022 §5)."""
    spike_limit: float | None = 10.0
    """A batch is skipped whose loss lies so many robust standard deviations above the median of
    the losses before; None: never. A loss or gradient that is not finite is skipped in any case."""
    skip_limit: int = 5
    """Skipped steps in a row after which the run stops and goes back to a checkpoint before."""

    def __post_init__(self) -> None:
        positive("optim", self, "learning_rate", "eps", "clip_norm", "accumulate", "skip_limit")
        if self.spike_limit is not None:
            positive("optim", self, "spike_limit")
        for name in ("b1", "b2", "decay_fraction", "final_fraction"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"optim.{name} is {value}: it must lie between 0 and 1.")
        for name in ("warmup_steps", "weight_decay", "z_loss"):
            value = getattr(self, name)
            require(value >= 0, f"optim.{name} is {value}: it must not be negative.")
            require(value < math.inf, f"optim.{name} is {value}: it must be a finite number.")
        if self.kind == "schedule_free":
            self._check_schedule_free()

    def _check_schedule_free(self) -> None:
        end = "while optim.kind is 'schedule_free'"
        require(
            self.schedule == "constant",
            f"optim.schedule is {self.schedule!r} {end}, which averages instead of decaying: set "
            "it to 'constant'.",
        )
        require(self.b1 > 0, f"optim.b1 is {self.b1} {end}: it must be above 0.")
        require(
            self.param_dtype == "float32",
            f"optim.param_dtype is {self.param_dtype!r} {end}, whose average is the difference of "
            "two sets of parameters: it must be 'float32'.",
        )
        require(
            self.moment_dtype == "float32",
            f"optim.moment_dtype is {self.moment_dtype!r} {end}, which keeps no first moment: "
            "leave it out; optim.second_moment_dtype may be 'bfloat16'.",
        )


@dataclass(frozen=True, kw_only=True)
class ParallelConfig:
    """Sizes of the mesh axes: their product is the number of devices, `data` = -1 the rest."""

    replica: int = 1
    """Batch is split between slices; the gradients meet over the data-centre network."""
    data: int = -1
    """Batch is split, parameters are replicated."""
    fsdp: int = 1
    """Batch and parameters are both split; weights are gathered where they are used."""
    tensor: int = 1
    """Heads and ffn width are split (Megatron-LM, Shoeybi et al. 2019); between sub-layers the
    length of the sequences is (Korthikanti et al. 2022)."""
    context: int = 1
    """The length of the sequences is split inside of the layers too."""
    context_kind: Literal["ring", "gather"] = "ring"
    """`ring`: keys and values go round (Liu et al. 2023); `gather`: they are gathered at once,
    which is cheap where few heads share them (Llama 3, Grattafiori et al. 2024 §3.3.2)."""
    expert: int = 1
    """Experts are split; everywhere else the axis is one more fsdp axis."""
    pipeline: int = 1
    """Layers are split into stages."""
    microbatches: int | None = None
    """Pieces of a (micro-)batch that follow each other through the stages; None: one per stage."""
    rounds: int = 1
    """How often a piece goes round all stages, each of which holds that many groups of layers
    (Narayanan et al. 2021): more rounds, smaller bubble, more messages."""

    def __post_init__(self) -> None:
        require(
            self.data > 0 or self.data == -1,
            f"parallel.data is {self.data}: give a number above 0, or -1 for all other devices.",
        )
        positive("parallel", self, "replica", "fsdp", "tensor", "context", "expert", "pipeline")
        positive("parallel", self, "rounds")
        if self.microbatches is not None:
            positive("parallel", self, "microbatches")
            require(
                self.microbatches % self.pipeline == 0,
                f"parallel.microbatches is {self.microbatches}, which parallel.pipeline = "
                f"{self.pipeline} does not divide: make it a multiple.",
            )


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """When training state is saved and what is kept."""

    every: int = 200
    """Steps between checkpoints; the last step is always saved."""
    keep_last: int = 2
    keep_every: int | None = None
    """Also keep for ever each checkpoint whose step this divides."""
    local: str | None = None
    """Folder on each host's own disk for checkpoints between those in `out`: for runs whose `out`
    is too slow to save in often. A host that is replaced loses it."""
    local_every: int | None = None
    """Steps between checkpoints in `local`; below `every`."""

    def __post_init__(self) -> None:
        positive("checkpoint", self, "every", "keep_last")
        require(
            (self.local is None) == (self.local_every is None),
            f"checkpoint.local is {self.local!r} and checkpoint.local_every is "
            f"{self.local_every!r}: give both, or none.",
        )
        if self.local_every is not None:
            positive("checkpoint", self, "local_every")
            require(
                self.local_every < self.every,
                f"checkpoint.local_every is {self.local_every}, and checkpoint.every is "
                f"{self.every}: checkpoints on the host's own disk come between the others.",
            )
        if self.keep_every is not None:
            positive("checkpoint", self, "keep_every")
            require(
                self.keep_every % self.every == 0,
                f"checkpoint.keep_every is {self.keep_every}, which is no multiple of "
                f"checkpoint.every = {self.every}: no checkpoint would fall on most of its steps.",
            )


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """Held-out evaluation during training."""

    every: int = 200
    """Steps between evaluations; the last step is always evaluated."""
    batches: int = 8
    """Batches of `data.batch_size`, spread over the validation split; all of it if it has fewer."""

    def __post_init__(self) -> None:
        positive("eval", self, "every", "batches")
