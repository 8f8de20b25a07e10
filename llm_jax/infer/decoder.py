"""A model as inference runs it: its static description, and its parameters in the right dtypes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from llm_jax.config import Architecture, ComputeConfig, ModelConfig, RecurrentConfig, UserError
from llm_jax.infer.sampling import Sampling
from llm_jax.models.protocol import model_of
from llm_jax.train.precision import as_matrices

Params = dict[str, Any]


@dataclass(frozen=True)
class Decoder:
    """The static arguments of a compiled loop.

    Attributes:
      vocab_size: number of tokens in the tokenizer. The model's vocabulary is padded beyond it;
        the padding is never chosen.
      stop_ids: the tokens that end a row, at least one.
    """

    model: ModelConfig | RecurrentConfig
    compute: ComputeConfig
    sampling: Sampling
    vocab_size: int
    stop_ids: tuple[int, ...]

    def next_logits(
        self,
        params: Params,
        tokens_BT: Any,
        positions_BT: Any,
        attend: Any,
        caches: Any,
        last_B: Any,
    ) -> tuple[jax.Array, Any]:
        """float32 logits (B, V) after column `last_B` of each row, and the caches."""
        family = model_of(self.model)
        x_BTD, caches, _ = family.hidden(
            params, tokens_BT, positions_BT, attend, self.model, self.compute, caches
        )
        logits_BV = family.logits(x_BTD[jnp.arange(len(last_B)), last_B], params, self.model)
        return known_only(logits_BV, self.vocab_size), caches


def known_only(logits: jax.Array, vocab_size: int) -> jax.Array:
    """Logits (…, V) with -inf for what pads the vocabulary beyond `vocab_size`."""
    V = logits.shape[-1]
    return logits if vocab_size == V else jnp.where(jnp.arange(V) < vocab_size, logits, -jnp.inf)


def compute_for_inference(compute: ComputeConfig) -> ComputeConfig:
    """Settings for inference: the run's dtype, and no rematerialisation, since there is no backward
    pass."""
    return ComputeConfig(dtype=compute.dtype, remat="none", scan_layers=compute.scan_layers)


def require_generates(model: Architecture) -> None:
    """Raises `UserError` if the family of the model cannot generate."""
    if not hasattr(model_of(model), "hidden"):
        raise UserError(
            f"model.kind is {model.kind!r}, which cannot generate: it has no method `hidden`."
        )


def prepared(params: Params, model: Architecture, compute: ComputeConfig) -> Params:
    """`params` with the matrices cast to the compute dtype once, instead of at each token. What
    training keeps in float32 (norms, biases, routers) stays in float32.

    Raises:
      UserError: the family of the model cannot generate.
    """
    require_generates(model)
    params = jax.tree.map(jnp.asarray, params)
    return as_matrices(params, compute.dtype, model_of(model).specs(model))


def check_room(model: Architecture, prompt: int, max_tokens: int) -> None:
    if prompt + max_tokens > model.max_seq_len:
        raise UserError(
            f"The prompt has {prompt} tokens and --max-tokens is {max_tokens}, more than the "
            f"model's context of {model.max_seq_len}: shorten one of them."
        )


def not_finite() -> UserError:
    """The error where logits are not finite numbers."""
    return UserError(
        "The model computes logits that are not finite numbers, so no token can be chosen: its "
        "weights are too large, or broken."
    )


def require_finite_logits(finite: np.bool_ | bool) -> None:
    if not finite:
        raise not_finite()
