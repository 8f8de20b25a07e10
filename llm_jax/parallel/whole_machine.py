"""A mesh of all devices of this machine, for a model that is only evaluated."""

from __future__ import annotations

import math

import jax
from jax.sharding import Mesh

from llm_jax.config import ModelConfig, ParallelConfig, RecurrentConfig, layers_of
from llm_jax.parallel.mesh import make_mesh


def machine_mesh(model: ModelConfig | RecurrentConfig) -> Mesh:
    """As many devices as divide the model's width; each holds a part of the parameters."""
    latent = layers_of(model).latent
    width = math.gcd(model.d_model, *(latent.ranks if latent else ()))
    count = max(n for n in range(1, jax.device_count() + 1) if width % n == 0)
    return make_mesh(ParallelConfig(data=1, fsdp=count), jax.devices()[:count])
