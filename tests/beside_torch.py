"""Gradients and one step of AdamW, here and in torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from llm_jax.config import OptimConfig, RunConfig
from llm_jax.convert.others import other_of
from llm_jax.convert.tensors import DTYPES, tensors
from llm_jax.train import step
from llm_jax.train.guard import fresh_guard
from llm_jax.train.state import optimizer_of


def optim_config(eps: float) -> OptimConfig:
    """AdamW from the first step on, without clipping.

    The first step is g / (|g| + eps): a rounding error dg of the gradient moves it by as much as
    dg / eps, so eps must stand well above float32's rounding of the gradients.
    """
    return OptimConfig(
        learning_rate=1e-2, warmup_steps=0, weight_decay=0.3, b1=0.8, b2=0.9, eps=eps, clip_norm=1e9
    )


def our_step(params: Any, batch: dict[str, np.ndarray], config: RunConfig) -> tuple[Any, Any, Any]:
    """Gradients, metrics, and parameters after one step."""

    def both(p: Any, given: Any) -> Any:
        opt = optimizer_of(config).init(p)
        state = {"params": p, "opt": opt, "guard": fresh_guard(), "step": np.int32(0)}
        token_bytes = np.ones(config.model.vocab_size, np.int32)
        after, _ = step.train_step(state, given, config, token_bytes)
        return *step.gradients(p, given, config), after["params"]

    return jax.jit(both)(params, batch)


def their_step(model: Any, optim: OptimConfig, decays: Callable[[str, Any], bool]) -> None:
    """One step of torch's AdamW with the gradients that the model has.

    Args:
      decays: whether the parameter of a name decays.
    """
    import torch

    groups: dict[bool, list[Any]] = {True: [], False: []}
    for name, parameter in model.named_parameters():
        groups[decays(name, parameter)].append(parameter)
    torch.optim.AdamW(
        [
            {"params": groups[True], "weight_decay": optim.weight_decay},
            {"params": groups[False], "weight_decay": 0.0},
        ],
        lr=optim.learning_rate,
        betas=(optim.b1, optim.b2),
        eps=optim.eps,
    ).step()


def require_same_step(
    params: Any,
    batch: dict[str, np.ndarray],
    config: RunConfig,
    theirs: Any,
    decays: Callable[[str, Any], bool],
) -> dict[str, Any]:
    """Gradients and parameters after a step are those of torch; for models that are no decoders.

    Args:
      theirs: the model of transformers, after `loss.backward()`.
      decays: as `their_step` takes it.

    Returns:
      Our metrics.
    """
    named, other = dict(theirs.named_parameters()), other_of(config.model)
    assert other is not None
    ours = {tensor.name: tensor for tensor in tensors(config.model, other.model_type)}
    assert set(ours) == set(named)

    def worst(tree: Any, wanted: dict[str, Any]) -> float:
        host = jax.device_get(tree)
        return max(
            np.abs(tensor.read(host, DTYPES["float32"]) - wanted[key]).max()
            / max(np.abs(wanted[key]).max(), 1e-2)
            for key, tensor in ours.items()
        )

    grads, metrics, after = our_step(params, batch, config)
    assert worst(grads, {k: p.grad.numpy() for k, p in named.items()}) < 1e-4
    their_step(theirs, config.optim, decays)
    assert worst(after, {k: p.detach().numpy() for k, p in named.items()}) < 1e-4
    return metrics
