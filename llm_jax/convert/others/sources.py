"""What families of encoder-decoders share: how they are compared, and their model card."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from llm_jax.config import SourceToTarget
from llm_jax.models.protocol import PLAIN, model_of

PIPELINE = "text2text-generation"
"""Pipeline of the models that write a target for a source."""


def _halves(tokens_BT: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A source and a target of the sample of text, of different lengths."""
    cut = 2 * tokens_BT.shape[1] // 3
    return tokens_BT[:, :cut], tokens_BT[:, cut:]


def ours(params: Any, config: SourceToTarget, tokens_BT: np.ndarray) -> np.ndarray:
    """Logits of the last third of the tokens as the target of the rest, in full precision."""
    source, target = map(jnp.asarray, _halves(tokens_BT))
    batch = {
        "inputs": source,
        "segments": jnp.ones_like(source),
        "decoder_inputs": target,
        "decoder_segments": jnp.ones_like(target),
    }
    family = model_of(config)

    @jax.jit
    def forward(params: Any) -> jax.Array:
        x_BTD = family.forward(params, batch, config, PLAIN).x_BTD
        logits: jax.Array = family.logits(x_BTD, params, config)
        return logits

    with jax.default_matmul_precision("highest"):
        return np.asarray(forward(params))


def theirs(model: Any, tokens_BT: np.ndarray) -> np.ndarray:
    """The same of transformers."""
    import torch

    source, target = (torch.from_numpy(part.astype(np.int64)) for part in _halves(tokens_BT))
    logits: np.ndarray = model(input_ids=source, decoder_input_ids=target).logits.numpy()
    return logits


def use(prompt: str) -> list[str]:
    """Lines of the model card."""
    return [
        f"inputs = tokenizer({prompt!r} + tokenizer.eos_token, add_special_tokens=False, "
        'return_tensors="pt")',
        "print(tokenizer.decode(model.generate(**inputs, max_new_tokens=50)[0]))",
    ]
