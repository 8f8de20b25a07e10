"""What families of models share: parameters that are stacks of blocks, and layers around them."""

from __future__ import annotations

from typing import Any

import jax
from flax import nnx

from llm_jax.models.common.stack import (
    Layout,
    MakeModule,
    Params,
    arrays_of,
    declare,
    init_stacks,
    stack_specs,
)


class Stacked:
    """`init` and `specs` of a family (`protocol.Model`)."""

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
