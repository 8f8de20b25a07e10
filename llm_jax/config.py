"""The run as frozen data: every choice of a run in one value, checked before anything is spent.

A `RunConfig` is built by a recipe (`configs/*.py`), by the planner, or from JSON; flags override
its scalar fields; the resolved JSON is stored with the run and in each of its checkpoints.
Nothing in it is derived: what follows from other fields is a property.

Standard library only, so that `--help`, the planner and the launcher start without JAX.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import re
import runpy
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

T = TypeVar("T")


class UserError(Exception):
    """A user's mistake: one sentence that names the field, the value and the way out."""

    exit_code = 2
    abandons_threads = False
    """Whether threads are left that nobody can wait for, so that the process has to end at once."""


class ConfigError(UserError):
    """A configuration that can never run: supervisors must not retry it (exit code 78)."""

    exit_code = 78


def require(condition: bool, sentence: str) -> None:
    """Raises `ConfigError(sentence)` unless `condition` holds."""
    if not condition:
        raise ConfigError(sentence)


def nearest(word: str, known: typing.Iterable[str]) -> str:
    """The end of an error sentence: the nearest known name, or all of them if none is near.

    One whose initials the word is (`lr` for `learning_rate`) is nearer than one that looks alike.
    """
    known = sorted(known)
    last = word.rsplit(".", 1)[-1].strip("-")
    close = [name for name in known if last and _initials(name) == last]
    close = close or difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}."


def _initials(name: str) -> str:
    """Of the words of a name's last part, if it has several."""
    words = re.split("[-_]", name.rsplit(".", 1)[-1].strip("-"))
    return "".join(word[0] for word in words if word) if len(words) > 1 else ""


def _positive(owner: str, obj: Any, *names: str) -> None:
    for name in names:
        value = getattr(obj, name)
        require(value > 0, f"{owner}.{name} is {value}: it must be above 0.")
        require(value < math.inf, f"{owner}.{name} is {value}: it must be a finite number.")


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
    _positive(owner, scaling, "factor", "original_max_seq_len", low, high)
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
        _positive("model.moe", self, "experts", "top_k", "d_ff", "scale", "every")
        require(
            self.top_k <= self.experts,
            f"model.moe.top_k is {self.top_k}, more than model.moe.experts = {self.experts}: "
            "choose fewer.",
        )
        for name in ("shared_d_ff", "dense_layers", "balance_loss", "balance_rate", "z_loss"):
            value = getattr(self, name)
            require(0 <= value < math.inf, f"model.moe.{name} is {value}: it must not be negative.")
        if self.capacity_factor is not None:
            _positive("model.moe", self, "capacity_factor")


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
        _positive("model", self, "vocab_size", "num_layers", "d_model", "num_heads", "num_kv_heads")
        _positive("model", self, "head_dim", "d_ff", "max_seq_len", "norm_eps", "rope_theta")
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
        if self.sliding_window is not None:
            _positive("model", self, "sliding_window")
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
        _positive("compute", self, "loss_chunk")
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
        _positive("data", self, "seq_len", "batch_size")
        start, doublings = self.ramp_from, self._doublings
        if start is None:
            require(
                self.ramp_steps == 0,
                f"data.ramp_steps is {self.ramp_steps}, and data.ramp_from is not set: say with "
                "how many sequences to begin.",
            )
            return
        _positive("data", self, "ramp_from")
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
        _positive("optim", self, "learning_rate", "eps", "clip_norm", "accumulate", "skip_limit")
        if self.spike_limit is not None:
            _positive("optim", self, "spike_limit")
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
        _positive("parallel", self, "replica", "fsdp", "tensor", "context", "expert", "pipeline")
        _positive("parallel", self, "rounds")
        if self.microbatches is not None:
            _positive("parallel", self, "microbatches")
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
        _positive("checkpoint", self, "every", "keep_last")
        require(
            (self.local is None) == (self.local_every is None),
            f"checkpoint.local is {self.local!r} and checkpoint.local_every is "
            f"{self.local_every!r}: give both, or none.",
        )
        if self.local_every is not None:
            _positive("checkpoint", self, "local_every")
            require(
                self.local_every < self.every,
                f"checkpoint.local_every is {self.local_every}, and checkpoint.every is "
                f"{self.every}: checkpoints on the host's own disk come between the others.",
            )
        if self.keep_every is not None:
            _positive("checkpoint", self, "keep_every")
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
        _positive("eval", self, "every", "batches")


@dataclass(frozen=True, kw_only=True)
class PlanRecord:
    """What `llm-jax plan` promised of the run; `llm-jax report` holds it against what came."""

    params: int
    tokens: int
    """The size and the data that were promised for; a run changed since has no promise."""
    step_seconds: float
    """Expected time of a step; it lies between the two below."""
    step_seconds_low: float
    step_seconds_high: float
    hours: float
    """Wall time with restarts."""
    machine: str
    usd: float | None = None
    law: str | None = None
    loss: float | None = None
    """Validation loss in nats per token, None where no law speaks of losses."""
    loss_low: float | None = None
    loss_high: float | None = None
    """Ends of the 90% interval."""
    law_text: str | None = None
    """The text that the law was fitted on, if it is another than the run's or not known."""

    def __post_init__(self) -> None:
        _positive("plan", self, "params", "tokens", "step_seconds", "hours")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One training run."""

    name: str
    out: str
    """Folder of the run: checkpoints, metrics, figures. Training resumes what it finds there."""
    steps: int
    seed: int = 0
    """Seed of the initial parameters."""
    log_every: int = 10
    wandb: str | None = None
    """Project of Weights & Biases that measurements go to as well; needs the extra `wandb`."""
    profile: str | None = None
    """Steps `first:last` of which a profile is written to `<out>/profile`."""
    model: ModelConfig
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    plan: PlanRecord | None = None
    """Of a run that was planned; training does not look at it."""

    def __post_init__(self) -> None:
        _positive("run", self, "steps", "log_every")
        require(self.name != "", "run.name is empty: give the run a name.")
        require(
            self.data.seq_len <= self.model.max_seq_len,
            f"data.seq_len is {self.data.seq_len}, longer than model.max_seq_len = "
            f"{self.model.max_seq_len}: shorten one or raise the other.",
        )
        require(
            self.data.batch_size % self.optim.accumulate == 0,
            f"data.batch_size is {self.data.batch_size}, which optim.accumulate = "
            f"{self.optim.accumulate} does not divide: choose a divisor of it.",
        )
        micro = self.data.batch_size // self.optim.accumulate
        require(
            (self.data.ramp_from or micro) % micro == 0,
            f"data.ramp_from is {self.data.ramp_from}, no multiple of the {micro} sequences of a "
            "micro-batch (data.batch_size / optim.accumulate): raise one of data.ramp_from and "
            "optim.accumulate.",
        )
        require(
            self.data.ramp_steps < self.steps,
            f"data.ramp_steps is {self.data.ramp_steps}, not fewer than the {self.steps} steps of "
            "the run: lower it.",
        )
        require(
            self.compute.remat != "offload" or self.parallel.pipeline == 1,
            f"compute.remat is 'offload', which parallel.pipeline = {self.parallel.pipeline} does "
            "not go with: set it to 'full'.",
        )
        require(
            self.optim.grad_dtype == "float32"
            or "bfloat16" in (self.compute.dtype, self.optim.param_dtype),
            "optim.grad_dtype is 'bfloat16', but compute.dtype and optim.param_dtype are "
            "'float32': set one of them to 'bfloat16' too.",
        )
        require(
            self.optim.warmup_steps <= self.steps,
            f"optim.warmup_steps is {self.optim.warmup_steps}, more than the {self.steps} steps of "
            "the run: shorten it.",
        )
        if self.profile is not None:
            first, last = self.profiled_steps or (0, 0)
            require(
                1 <= first <= last <= self.steps,
                f"run.profile is {self.profile!r}: write first:last, two of the steps 1 to "
                f"{self.steps}, such as 10:14.",
            )

    @property
    def profiled_steps(self) -> tuple[int, int] | None:
        """First and last step of `profile`; None if there is none, or if it is not understood."""
        match = re.fullmatch(r"(\d{1,18}):(\d{1,18})", self.profile or "")
        return (int(match[1]), int(match[2])) if match else None

    @property
    def batch_tokens(self) -> int:
        """Tokens per optimizer step, after a ramp."""
        return self.data.batch_size * self.data.seq_len

    def tokens(self, steps: int) -> int:
        """Tokens that the first `steps` steps read."""
        return self.data.sequences(steps) * self.data.seq_len


def to_dict(config: Any) -> dict[str, Any]:
    """The config as nested plain dicts, ready for JSON."""
    return dataclasses.asdict(config)


def to_json(config: Any) -> str:
    return json.dumps(to_dict(config), indent=2) + "\n"


def from_json(text: str, cls: type[T]) -> T:
    """Inverse of `to_json`; raises `ConfigError` on unknown keys, missing keys and wrong types."""
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError) as error:  # numbers of over 4300 digits, endless nesting
        raise ConfigError(
            f"The config is not JSON ({error}): pass a recipe or a run.json."
        ) from None
    return from_dict(raw, cls)


def from_dict(raw: Any, cls: type[T], where: str = "run") -> T:
    """Builds the dataclass `cls` from nested dicts, strictly. `where` names it in errors."""
    require(isinstance(raw, dict), f"{where} is {raw!r}: it must be an object with named fields.")
    hints = typing.get_type_hints(cls)
    for key in raw:
        require(key in hints, f"{where} has no field {key!r}: {nearest(key, hints)}")
    for item in dataclasses.fields(cls):  # type: ignore[arg-type]
        no_default = (
            item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
        )
        require(item.name in raw or not no_default, f"{where}.{item.name} is missing: set it.")
    return cls(**{key: _convert(raw[key], hints[key], f"{where}.{key}") for key in raw})


def _convert(value: Any, hint: Any, where: str) -> Any:
    """`value` checked against the type `hint`; nested objects become dataclasses."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        options = [a for a in args if a is not type(None)]
        if isinstance(value, dict) and len(options) > 1:
            kinds = {a.kind: a for a in options}
            kind = value.get("kind")
            known = isinstance(kind, str) and kind in kinds
            require(known, f"{where}.kind is {kind!r}: {nearest(str(kind), kinds)}")
            return from_dict(value, kinds[kind], where)
        return _convert(value, options[0], where)
    if origin is Literal:
        choices = ", ".join(repr(a) for a in args)
        require(value in args, f"{where} is {value!r}: choose one of {choices}.")
        return value
    if origin is tuple:
        require(isinstance(value, list | tuple), f"{where} is {value!r}: it must be a list.")
        return tuple(_convert(one, args[0], f"{where}[{i}]") for i, one in enumerate(value))
    if dataclasses.is_dataclass(hint):
        return from_dict(value, hint, where)  # type: ignore[arg-type]
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value) if abs(value) < 1 << 1023 else math.inf
    right = isinstance(value, hint) and (hint is bool or not isinstance(value, bool))
    require(right, f"{where} is {value!r}: it must be of type {hint.__name__}.")
    if hint is float:
        require(math.isfinite(value), f"{where} is {value}: it must be a finite number.")
    return value


def load(reference: str) -> RunConfig:
    """The config that a recipe's name, a recipe's path or a `run.json` stands for.

    Raises:
      ConfigError: nothing of that name, or what it holds is no valid `RunConfig`.
    """
    path = Path(reference)
    if path.suffix == ".json":
        require(path.is_file(), f"There is no config file {reference!r}: check the path.")
        try:
            return from_json(path.read_text(encoding="utf-8"), RunConfig)
        except UnicodeDecodeError:
            raise ConfigError(f"The config is not UTF-8 ({reference}): pass a run.json.") from None
    if path.suffix != ".py":
        recipes = {p.stem: p for folder in recipe_folders() for p in sorted(folder.glob("*.py"))}
        require(
            reference in recipes, f"There is no recipe {reference!r}: {nearest(reference, recipes)}"
        )
        path = recipes[reference]
    require(path.is_file(), f"There is no recipe file {reference!r}: check the path.")
    config = _run_recipe(path)
    require(isinstance(config, RunConfig), f"config() in {path} did not return a RunConfig.")
    return config


def _run_recipe(path: Path) -> Any:
    """What config() in the Python file `path` returns."""
    try:
        made = runpy.run_path(str(path))
        require(
            "config" in made, f"The recipe {path} has no function config() -> RunConfig: add it."
        )
        return made["config"]()
    except UserError:
        raise
    except Exception as error:
        raise ConfigError(
            f"The recipe {path} could not be run ({type(error).__name__}: {error}): correct it."
        ) from error


def recipe_folders() -> list[Path]:
    """Where recipes are looked for: `configs/` here, and the one that came with the package."""
    package = Path(__file__).resolve().parent
    folders = (package / "configs", package.parent / "configs", Path("configs"))
    return [folder for folder in folders if folder.is_dir()]
