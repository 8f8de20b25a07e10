"""The last layer of an encoder that learns from labelled examples, as transformers has it.

labels/out (D, C), labels/out_bias (C,)          all but `embed`, which has no parameters
[labels/pool (D, D), labels/pool_bias (D,)]      BERT's `classify`: a layer on the first position
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from llm_jax.config import EncoderConfig, ModernEncoderConfig, layers_of
from llm_jax.config.heads import outputs_of
from llm_jax.models.common.layers import init_std, normal, zeros


def label_layers(config: EncoderConfig | ModernEncoderConfig, rngs: nnx.Rngs) -> nnx.Dict | None:
    """The layers; None for `masked` and `embed`."""
    D, C, std = config.d_model, outputs_of(config), init_std(layers_of(config))
    if C == 0:
        return None
    made: dict[str, Any] = {}
    if config.head == "classify" and isinstance(config, EncoderConfig):
        made["pool"] = normal(rngs, (D, D), ("embed", None), std)
        made["pool_bias"] = zeros((D,), ("norm",))
    made["out"] = normal(rngs, (D, C), ("embed", None), std)
    made["out_bias"] = zeros((C,), (None,))
    return nnx.Dict(made)


def label_outputs(x: jax.Array, layers: dict[str, jax.Array]) -> jax.Array:
    """float32 outputs (…, C) of hidden states (…, D)."""
    layers = {name: leaf.astype(x.dtype) for name, leaf in layers.items()}
    if "pool" in layers:
        x = jnp.tanh(x @ layers["pool"] + layers["pool_bias"])
    return (x @ layers["out"] + layers["out_bias"]).astype(jnp.float32)
