"""What families of models share: parameters that are stacks of blocks, and layers around them.

The table of tokens is at `embed/tokens`; it is the output matrix too, or that is at `unembed`.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from llm_jax.config import ComputeConfig, layers_of
from llm_jax.models.common.stack import (
    Layout,
    MakeModule,
    Params,
    arrays_of,
    declare,
    init_stacks,
    stack_specs,
)
from llm_jax.parallel.mesh import constrain, gather_fsdp

SEPARATE = "layers"
"""Place of a tuple with the parameters of each layer, in place of stacks."""


def blocks_of(params: Params, layout: Layout) -> dict[str, Params] | tuple[Params, ...]:
    """The parameters of the blocks, as `run_layers` takes them."""
    if SEPARATE in params:
        return tuple(params[SEPARATE])
    return {name: params[name] for name in layout.stacks}


class Stacked:
    """`init`, `specs` and `unembedding` of a family (`protocol.Model`)."""

    ends: MakeModule
    """Constructor of the layers before and after the blocks."""

    def layout(self, config: Any) -> Layout:
        """The blocks in order."""
        raise NotImplementedError

    def init(self, config: Any, key: jax.Array) -> Params:
        """New float32 parameters, as a nested dict."""
        layout, (ends_key, blocks_key) = self.layout(config), jax.random.split(key)
        layer_keys = jax.random.split(blocks_key, len(layout.layers))
        ends = arrays_of(self.ends(config, nnx.Rngs(params=ends_key)))
        return ends | init_stacks(layout, config, layer_keys)

    def specs(self, config: Any) -> Params:
        """The tree of `init`, with a `Spec` in place of each array."""
        return dict(declare(self.ends, config)[1]) | stack_specs(self.layout(config), config)

    def merged_ends(self, params: Params, config: Any) -> Any:
        """The layers before and after the blocks, with their arrays."""
        beside = (*self.layout(config).stacks, SEPARATE)
        arrays = {name: leaf for name, leaf in params.items() if name not in beside}
        return nnx.merge(declare(self.ends, config)[0], arrays)

    def embedded(self, params: Params, tokens_BT: jax.Array, compute: ComputeConfig) -> jax.Array:
        """The rows of the tokens, (B, T, D) in the compute dtype."""
        table_VD = gather_fsdp(params["embed"]["tokens"], ("vocab", "embed"))
        x_BTD = table_VD.astype(jnp.dtype(compute.dtype))[tokens_BT]
        # This constraint makes the compiler reduce partial sums over the vocabulary's axis. With
        # a constraint that splits the length, it would gather the whole table.
        return constrain(x_BTD, "batch", "length", "act_embed")

    def unembedding(self, params: Params, config: Any) -> jax.Array:
        """The matrix from hidden states to logits, (D, V) in its stored dtype, gathered."""
        if layers_of(config).tie_embeddings:
            return gather_fsdp(params["embed"]["tokens"], ("vocab", "embed")).T
        return gather_fsdp(params["unembed"], ("embed", "vocab"))
