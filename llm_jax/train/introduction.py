"""What a run says of itself before its first step: its sizes, its mesh, and what it reads."""

from __future__ import annotations

from collections.abc import Iterator

import jax
from jax.sharding import Mesh

from llm_jax.config import (
    ModelConfig,
    RecurrentConfig,
    RecurrentEncoderDecoderConfig,
    RunConfig,
    Word2VecConfig,
)
from llm_jax.config.wording import counted
from llm_jax.facts.counts import active_parameters, total_parameters
from llm_jax.models.common.attend import attention_of
from llm_jax.models.protocol import parameter_shapes
from llm_jax.parallel.mesh import used_axes
from llm_jax.train.shares import Use


def introduction(
    config: RunConfig, mesh: Mesh, tokens: int, peak: str, read: list[Use]
) -> Iterator[str]:
    """The sentences.

    Args:
      tokens: of the whole run.
      peak: where the processors' speed is from (`peak.peak_flops`).
      read: what the run reads of each source.
    """
    model, device = config.model, mesh.devices.flat[0].platform
    attends = None
    if isinstance(model, RecurrentConfig | RecurrentEncoderDecoderConfig):
        layer_kind = f"{model.cell} layers"
    elif isinstance(model, Word2VecConfig):
        layer_kind = f"{model.method} by {model.negatives} samples"
    else:
        attends = attention_of(config, mesh, device)
        layer_kind = f"{attends.kind} attention"
    data = config.data
    first = (data.ramp_from or data.batch_size) * data.seq_len
    ramp = f" (from {first:,} in the first {data.ramp_steps:,})" if data.ramp_from else ""
    yield (
        f"{config.name}: {_sizes(config)}, "
        f"{counted(config.steps, 'step')} of {config.batch_tokens:,} tokens{ramp}, "
        f"{tokens / 1e6:.1f} M tokens in all; "
        f"mesh {used_axes(mesh)}; {layer_kind}, {config.compute.dtype}; {peak}"
    )
    if attends and attends.reason:
        yield f"The {device} attention kernel is not used: {attends.reason}."
    if config.compute.compiler and device != "tpu":
        asked = ", ".join(config.compute.compiler)
        yield f"compute.compiler ({asked}) is for TPUs: it does nothing on a {device}."
    yield from _reading(read)


def _reading(read: list[Use]) -> list[str]:
    """What a run reads of each source, and how often where that is more than once."""
    if len(read) == 1:
        epochs = read[0].epochs
        return [f"The training split is read {epochs:.1f} times."] if epochs > 1 else []
    whole = sum(use.tokens for use in read) or 1
    return [
        f"{use.text.name}: {use.tokens / whole:.2%} of what is read, {use.tokens:,} tokens, "
        f"{use.epochs:.3g} times its {use.text.tokens:,}."
        for use in read
    ]


def _sizes(config: RunConfig) -> str:
    """How many parameters the model has, and how many of them a token uses."""
    model = config.model
    if not isinstance(model, ModelConfig) or model.kind != "decoder":
        leaves = jax.tree.leaves(parameter_shapes(model))
        return f"{sum(leaf.size for leaf in leaves) / 1e6:.2f} M parameters"
    size, active = total_parameters(model), active_parameters(model)
    of_these = f" ({active / 1e6:.2f} M for each token)" if active < size else ""
    return f"{size / 1e6:.2f} M parameters{of_these}"
