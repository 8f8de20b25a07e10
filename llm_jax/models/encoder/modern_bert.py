"""ModernBERT (Warner et al. 2024) with the head of `model.head`, behind `protocol.Model`.

    embed/tokens (V, D), embed_norm/scale
    first/…               the first block, which has no norm before its attention; axis of 1
    blocks/…              every leaf of the other blocks, stacked: leading axis L - 1
    final_norm/scale
    head/dense (D, D), head/norm/scale                       all heads but `embed`
    head/bias (V,)                                           masked
    labels/out (D, C), labels/out_bias (C,)                  other heads (`heads.py`)

The output matrix is the table of tokens. Norms are LayerNorms without bias.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from llm_jax.attention.mask import Cache, Mask
from llm_jax.config import ConfigError, ModernEncoderConfig
from llm_jax.models.common.attend import packed_attend
from llm_jax.models.common.family import Stacked
from llm_jax.models.common.layers import (
    ACTIVATIONS,
    Attention,
    Norm,
    Product,
    Shared,
    init_std,
    normal,
    project,
    zeros,
)
from llm_jax.models.common.quantize import matmul_of
from llm_jax.models.common.rope import rotations
from llm_jax.models.common.stack import (
    Layer,
    Layout,
    run_layers,
)
from llm_jax.models.encoder.heads import label_layers, label_outputs
from llm_jax.models.protocol import Batch, Context, Hidden, Params
from llm_jax.parallel.mesh import axis_shards, constrain

GELU = ACTIVATIONS["gelu_exact"]


class GatedMlp(nnx.Module):
    """GeGLU with the GELU of the error function (Shazeer 2020), without biases."""

    def __init__(self, config: ModernEncoderConfig, rngs: nnx.Rngs):
        D, F, std = config.d_model, config.d_ff, init_std(config.layers)
        self.gate = normal(rngs, (D, F), ("embed", "mlp"), std)
        self.up = normal(rngs, (D, F), ("embed", "mlp"), std)
        out_std = std / math.sqrt(2 * config.num_layers)
        self.down = normal(rngs, (F, D), ("mlp", "embed"), out_std)

    def __call__(self, x_BTD: jax.Array, matmul: Product) -> jax.Array:
        """Output, (B, T, D) in the dtype of `x_BTD`."""
        gate, up, down = (leaf[...].astype(x_BTD.dtype) for leaf in (self.gate, self.up, self.down))
        h_BTF = constrain(GELU(matmul(x_BTD, gate)) * matmul(x_BTD, up), "batch", "length", "mlp")
        return matmul(h_BTF, down)


class Block(nnx.Module):
    """Pre-norm residual block. The first of a model reads the embedding, which is normalised."""

    def __init__(self, config: ModernEncoderConfig, rngs: nnx.Rngs, *, first: bool = False):
        layers = config.layers
        self.first = first
        if not first:
            self.attn_norm = Norm(layers, config.d_model)
        self.attn = Attention(layers, rngs)
        self.mlp_norm = Norm(layers, config.d_model)
        self.mlp = GatedMlp(config, rngs)

    def __call__(
        self, x_BTD: jax.Array, shared: Shared, mask: Mask, cache: Cache
    ) -> tuple[jax.Array, Cache, None]:
        """x_BTD after the block, in its dtype; the cache is passed through."""
        h_BTD = x_BTD if self.first else self.attn_norm(x_BTD)
        h_BTD, cache = self.attn(h_BTD, shared, mask, cache)
        x_BTD = constrain(x_BTD + h_BTD, "batch", "length", "act_embed")
        h_BTD = self.mlp(self.mlp_norm(x_BTD), shared.matmul)
        return constrain(x_BTD + h_BTD, "batch", "length", "act_embed"), cache, None


def first_block(config: ModernEncoderConfig, rngs: nnx.Rngs) -> Block:
    """The block without a norm before its attention."""
    return Block(config, rngs, first=True)


class Ends(nnx.Module):
    """The layers before and after the blocks."""

    def __init__(self, config: ModernEncoderConfig, rngs: nnx.Rngs):
        V, D, layers = config.vocab_size, config.d_model, config.layers
        std = init_std(layers)
        self.embed = nnx.Dict({"tokens": normal(rngs, (V, D), ("vocab", "embed"), std, "table")})
        self.embed_norm, self.final_norm = Norm(layers, D), Norm(layers, D)
        if config.head == "embed":
            return
        head = {"dense": normal(rngs, (D, D), ("embed", None), std), "norm": Norm(layers, D)}
        if config.head == "masked":
            head["bias"] = zeros((V,), ("vocab",))
        self.head = nnx.Dict(head)
        if (made := label_layers(config, rngs)) is not None:
            self.labels = made


class ModernBert(Stacked):
    """The family `modern_encoder` (`protocol.Model`)."""

    ends = Ends

    def layout(self, config: ModernEncoderConfig) -> Layout:
        """The blocks in order."""
        return _layout(config)

    def forward(
        self, params: Params, batch: Batch, config: ModernEncoderConfig, context: Context
    ) -> Hidden:
        """Hidden states after the last norm.

        Raises:
          ConfigError: the mesh splits the length or the layers, which a decoder alone supports.
        """
        for axis in ("context", "pipeline"):
            if axis_shards(axis) > 1:
                raise ConfigError(f"parallel.{axis} is above 1: ModernBERT cannot be split by it.")
        compute, ends = context.compute, self.merged_ends(params, config)
        x_BTD = ends.embed_norm(self.embedded(params, batch["inputs"], compute))
        attend = packed_attend(config.layers, context, batch["segments"])
        rope = rotations(config.layers, batch["positions"])
        shared = Shared(attend, rope, matmul_of(compute.quantize))
        order = self.layout(config)
        stacks = {name: params[name] for name in order.stacks}
        x_BTD, _, routing = run_layers(stacks, x_BTD, shared, order, config, compute, None)
        x_BTD = constrain(ends.final_norm(x_BTD), "ends_batch", "length", "act_embed")
        return Hidden(x_BTD, routing)

    def features(self, x: jax.Array, params: Params, config: ModernEncoderConfig) -> jax.Array:
        """What the output matrix takes of hidden states (…, D), after the head's own layer."""
        head: Any = self.merged_ends(params, config).head
        y = jnp.einsum("...D,DE->...E", x, head["dense"][...].astype(x.dtype))
        normed: jax.Array = head["norm"](GELU(y))
        return normed

    def logits(self, x: jax.Array, params: Params, config: ModernEncoderConfig) -> jax.Array:
        """float32 logits (…, V) of hidden states (…, D)."""
        y = self.features(x, params, config)
        return project(y, self.unembedding(params, config), None, params["head"]["bias"])

    def label_outputs(
        self, x_BTD: jax.Array, params: Params, config: ModernEncoderConfig
    ) -> jax.Array:
        """float32 outputs of a head with labels: (B, C) of `classify`, else (B, T, C)."""
        x = x_BTD[:, 0] if config.head == "classify" else x_BTD
        return label_outputs(self.features(x, params, config), params["labels"])


MODERN_ENCODER = ModernBert()


@functools.cache
def _layout(config: ModernEncoderConfig) -> Layout:
    """The blocks in order: the first is a stack of its own, since it lacks a norm."""
    layers = []
    for number, whole in enumerate(config.whole):
        # A window of w sees keys less than w positions away, here those up to half of it.
        mask = (
            Mask(causal=False)
            if whole
            else Mask(causal=False, window=config.window // 2 + 1, rotation="local")
        )
        stack, make = ("blocks", Block) if number else ("first", first_block)
        layers.append(Layer(stack, make, mask))
    return Layout(tuple(layers), ((0, 1, 1), (1, config.num_layers, config.global_every)))
