"""A model that exists already: a config of ours, or one that was imported, with or without weights.

What it fixes is kept: the architecture, and of a run of ours the length of sequences, batch,
optimizer and schedule. The planner still chooses the machine, the mesh and the memory policy.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from llm_jax.config import ModelConfig, RunConfig
from llm_jax.laws.hyperparameters import HyperParameters


@dataclass(frozen=True, kw_only=True)
class Given:
    """A model that a plan takes as it is."""

    name: str
    """As the user named it."""
    model: ModelConfig
    run: RunConfig | None = None
    """The config that it is from, if it is one of ours."""
    weights: bool = False
    """Training begins with its weights."""
    read_before: float | None = None
    """Tokens that its weights have read of the text that the law was fitted on. None: not known, or
    another text, so that the law does not hold for what is read from here on."""

    def hyper(self, recommended: HyperParameters) -> HyperParameters:
        """Batch, optimizer and schedule of its run; as `recommended` if it has none."""
        if self.run is None:
            return recommended
        optim = self.run.optim
        return HyperParameters(
            self.run.batch_tokens,
            optim.learning_rate,
            self.name,
            final=optim.final_fraction,
            optimizer=optim.kind,  # type: ignore[arg-type]
            b2=optim.b2,
            weight_decay=optim.weight_decay,
        )

    def keep(self, planned: RunConfig) -> RunConfig:
        """`planned` with what the run of this model fixes and a plan does not choose."""
        if self.run is None:
            return planned
        chosen: dict[str, Any] = {
            name: getattr(planned.optim, name)
            for name in ("param_dtype", "moment_dtype", "second_moment_dtype", "grad_dtype")
        }
        warmup = min(self.run.optim.warmup(self.run.steps), planned.steps)
        executed: dict[str, Any] = {
            name: getattr(planned.compute, name)
            for name in ("dtype", "remat", "accumulate", "quantize")
        }
        return replace(
            planned,
            seed=self.run.seed,
            objective=self.run.objective,
            compute=replace(self.run.compute, **executed),
            data=replace(planned.data, seed=self.run.data.seed),
            optim=replace(self.run.optim, warmup_steps=warmup, **chosen),
        )
