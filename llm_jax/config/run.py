"""A run: all of its parts, and what must hold between them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from llm_jax.config.architecture import (
    Architecture,
    SourceToTarget,
    check_attention,
    check_objective,
)
from llm_jax.config.data import DataConfig
from llm_jax.config.errors import MOST, check_seed, positive, require
from llm_jax.config.extensions import check_name
from llm_jax.config.heads import LABELLED
from llm_jax.config.training import (
    CheckpointConfig,
    ComputeConfig,
    EvalConfig,
    OptimConfig,
    ParallelConfig,
)


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One training run.

    Raises:
      ConfigError: a value is out of range, or two fields do not fit together.
    """

    name: str
    """Name of the run."""
    out: str
    """Folder of the run: checkpoints, metrics, figures. Training resumes a run that it finds
    there."""
    steps: int
    """Optimizer steps."""
    seed: int = 0
    """Seed of the initial parameters."""
    objective: str = "next_token"
    """What training minimises, the mean -log p of: each next token (`next_token`), each token that
    is hidden from an encoder (`masked`), each token of spans that a decoder restores (`spans`).
    The heads of an encoder have their own: `classify`, `tag`, `answer`, `embed`.
    FILE.py:NAME: an objective of your own."""
    log_every: int = 10
    """Steps between logged metrics."""
    wandb: str | None = None
    """Weights & Biases project that also receives the metrics. Needs the extra `wandb`."""
    profile: str | None = None
    """Steps `first:last` to profile. The profile is written to `<out>/profile`."""
    model: Architecture
    """The architecture."""
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    """How the architecture is executed."""
    data: DataConfig = field(default_factory=DataConfig)
    """What the model reads."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """Optimizer and schedule."""
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    """Sizes of the mesh axes."""
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    """When the state is saved."""
    eval: EvalConfig = field(default_factory=EvalConfig)
    """When held-out text is evaluated."""

    def __post_init__(self) -> None:
        positive("run", self, "steps", "log_every")
        check_seed("run", self.seed)
        check_name("objective", self.objective)
        check_objective(self.model, self.objective)
        _check_loss(self.optim, self.objective)
        check_attention(self.model, self.compute.attention)
        require(
            self.batch_tokens <= MOST,
            f"data.batch_size x data.seq_len is {self.batch_tokens:,} tokens: it must be at most "
            f"{MOST:,}.",
        )
        require(self.name != "", "run.name is empty: give the run a name.")
        require(self.out != "", "run.out is empty: name the folder of the run.")
        require(
            self.data.seq_len <= self.model.max_seq_len,
            f"data.seq_len is {self.data.seq_len}, longer than model.max_seq_len = "
            f"{self.model.max_seq_len}: shorten one or raise the other.",
        )
        require(
            self.data.batch_size % self.compute.accumulate == 0,
            f"data.batch_size is {self.data.batch_size}, which compute.accumulate = "
            f"{self.compute.accumulate} does not divide: set accumulate to one of its divisors.",
        )
        micro = self.data.batch_size // self.compute.accumulate
        require(
            (self.data.ramp_from or micro) % micro == 0,
            f"data.ramp is {self.data.ramp!r}, but its first batch is not a multiple of the "
            f"{micro} sequences of a micro-batch (data.batch_size / compute.accumulate): raise one "
            "of them.",
        )
        require(
            self.data.ramp_steps < self.steps,
            f"data.ramp is {self.data.ramp!r}, but the run has {self.steps} steps: give the ramp "
            "fewer.",
        )
        if self.data.mixture:
            self.data.mixture.check_stages(self.steps)
        require(
            self.compute.remat != "offload" or self.parallel.pipeline == 1,
            "compute.remat is 'offload', which does not work with parallel.pipeline = "
            f"{self.parallel.pipeline}: set it to 'full'.",
        )
        require(
            self.optim.grad_dtype == "float32"
            or "bfloat16" in (self.compute.dtype, self.optim.param_dtype),
            "optim.grad_dtype is 'bfloat16', but compute.dtype and optim.param_dtype are "
            "'float32': set one of them to 'bfloat16' too.",
        )
        require(
            (self.optim.warmup_steps or 0) <= self.steps,
            f"optim.warmup_steps is {self.optim.warmup_steps}, more than the {self.steps} steps of "
            "the run: lower it.",
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
        """First and last step of `profile`. None if it is unset or not in the form `first:last`."""
        match = re.fullmatch(r"(\d{1,18}):(\d{1,18})", self.profile or "")
        return (int(match[1]), int(match[2])) if match else None

    @property
    def batch_tokens(self) -> int:
        """Tokens per optimizer step, after any ramp."""
        return self.data.batch_size * self.data.seq_len

    def tokens(self, steps: int) -> int:
        """Total tokens read in the first `steps` steps."""
        return self.data.sequences(steps) * self.data.seq_len


def _check_loss(optim: OptimConfig, objective: str) -> None:
    """Raises `ConfigError` for a term of the loss that the objective does not have."""
    for name in ("z_loss", "label_smoothing"):
        value = getattr(optim, name)
        require(
            value == 0 or objective not in (*LABELLED, "negative_samples"),
            f"optim.{name} is {value}, but objective {objective!r} does not predict tokens by a "
            "softmax over the vocabulary: leave it out.",
        )


VOCAB_MULTIPLE = 128
"""A model's vocabulary may be its tokenizer's, rounded up to a multiple of this for the hardware.
"""


def check_vocabulary(config: RunConfig, have: int) -> None:
    """Raises `ConfigError` unless the model's vocabulary fits its dataset's, of `have` tokens.

    An existing run may have any larger vocabulary, because an imported model may have any padding.
    """
    places = ("tokenizer.model", "tokenizer/tokenizer.json")
    exists = any(Path(config.out, place).is_file() for place in places)
    folder = next(iter(config.data.folders.values()))
    model = config.model
    more = model.sentinels if isinstance(model, SourceToTarget) else 0
    fits = {size for base in (have, have + more) for size in (base, _rounded(base))}
    need, rounded = have + more, _rounded(have + more)
    require(
        model.vocab_size in fits or (exists and model.vocab_size > have),
        f"model.vocab_size is {model.vocab_size}, but the tokenizer of {folder} "
        f"has {have} tokens"
        + (f", and model.sentinels is {more}" if more else "")
        + f": set it to {need}"
        + (f", or to {rounded} for a multiple of {VOCAB_MULTIPLE}." if rounded != need else "."),
    )


def _rounded(size: int) -> int:
    return -(-size // VOCAB_MULTIPLE) * VOCAB_MULTIPLE
