"""What encoders share on their way to Hugging Face and back."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from llm_jax.config import Architecture
from llm_jax.convert.parity import hidden_states
from llm_jax.models.protocol import model_of


def plain_masked(*outputs: np.ndarray) -> np.ndarray:
    """All outputs in one array (n,)."""
    return np.concatenate([np.ravel(output) for output in outputs])


def our_masked(params: Any, config: Architecture, tokens_BT: np.ndarray) -> np.ndarray:
    """Logits of the tokens, and those of the halves if the model has them, with all matmuls in full
    precision."""
    with jax.default_matmul_precision("highest"):
        made = _forward(params, jnp.asarray(tokens_BT), config)
    return plain_masked(*map(np.asarray, made))


@functools.partial(jax.jit, static_argnames="config")
def _forward(
    params: dict[str, Any], tokens_BT: jax.Array, config: Architecture
) -> tuple[jax.Array, ...]:
    family, x_BTD = model_of(config), hidden_states(params, tokens_BT, config)
    logits: tuple[jax.Array, ...] = (family.logits(x_BTD, params, config),)
    if "pair" in params:
        logits += (family.pair_logits(x_BTD[:, 0], params, config),)
    return logits


def masked_use(prompt: str) -> list[str]:
    """Lines of the model card."""
    return [
        f'inputs = tokenizer({prompt!r} + tokenizer.mask_token, return_tensors="pt")',
        "print(tokenizer.decode(model(**inputs)[0][0].argmax(-1)))",
    ]
