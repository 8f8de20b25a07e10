"""How decoders and encoders attend: their scores, and the implementation for packed sequences."""

from __future__ import annotations

import math

import jax
from jax.sharding import Mesh

from llm_jax.attention.choose import KERNELS, Choice, attend_by, attention_choice, split_choice
from llm_jax.attention.mask import Attend, Scores, alibi_slopes
from llm_jax.config import EncoderDecoderConfig, ModelConfig, RunConfig, layers_of
from llm_jax.models.protocol import Context
from llm_jax.parallel.mesh import axis_shards
from llm_jax.parallel.platform import platform


def scores(config: ModelConfig) -> Scores:
    """How attention computes its scores."""
    scale = config.attn_scale or 1 / math.sqrt(config.head_dim)
    slopes = alibi_slopes(config.num_heads) if config.positions == "alibi" else None
    value_dim = config.latent.value_dim if config.latent else None
    return Scores(config.head_dim, scale, config.attn_softcap, slopes, value_dim, config.attn_sinks)


def packed_attend(config: ModelConfig, context: Context, segments_BT: jax.Array) -> Attend:
    """Attention within the documents of packed sequences, for training and evaluation.

    Args:
      segments_BT: int32, the document of each position; equal numbers see each other. It is in
        `zigzag` order if the mesh splits the length.

    Raises:
      ConfigError: `compute.attention` names a kernel that cannot compute this model's attention.
    """
    T, shards = segments_BT.shape[1], axis_shards("context")
    return attend_by(_choice(config, context, T, shards, platform()), scores(config), segments_BT)


def attention_of(config: RunConfig, mesh: Mesh, platform: str) -> Choice:
    """The implementation that a run's steps use on `platform`, and why (raises `ConfigError`)."""
    if isinstance(config.model, EncoderDecoderConfig):
        reason = "it does not know a bias by distance" if platform in KERNELS else ""
        return Choice("reference", reason)
    context = Context(config.compute, config.parallel.context_kind)
    shards = mesh.shape["context"]
    return _choice(layers_of(config.model), context, config.data.seq_len, shards, platform)


def _choice(config: ModelConfig, context: Context, T: int, shards: int, platform: str) -> Choice:
    if shards > 1:
        return split_choice(scores(config), context.split, T, shards, platform)
    return attention_choice(scores(config), context.compute, T, platform)
