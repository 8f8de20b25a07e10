"""What a model is to the rest of the house, and the choice of one by `model.kind`.

A family is an object with the methods of `Model`. Its arrays are a nested dict
whose leaves carry a `Spec` each. The trainer, checkpoints, inference and conversion know no more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import jax

from llm_jax.attention.mask import Attend, Cache
from llm_jax.config import ComputeConfig, RunConfig
from llm_jax.config.extensions import load_part
from llm_jax.models.common.moe import Routing
from llm_jax.models.common.stack import Layout
from llm_jax.parallel.mesh import axis_shards
from llm_jax.parallel.pipeline import Schedule

Params = dict[str, Any]
Batch = dict[str, jax.Array]


@dataclass(frozen=True)
class Context:
    """How a forward pass is executed. Nothing here changes what it computes."""

    compute: ComputeConfig
    split: Literal["ring", "gather"] = "ring"
    """`parallel.context_kind`: how attention gets the keys of other devices."""
    schedule: Schedule | None = None
    """Of the pipeline, if the mesh has one."""


PLAIN = Context(ComputeConfig(dtype="float32", remat="none", attention="reference"))
"""In float32 and without kernels, as what other programs compute is compared."""


class Hidden(NamedTuple):
    """The result of a forward pass, before the output matrix."""

    x_BTD: jax.Array
    """Final hidden states, in the compute dtype."""
    routing: Routing | None = None
    """Measurements of the layers with experts, stacked; None without experts."""


class Model(Protocol):
    """One family of architectures."""

    def init(self, config: Any, key: jax.Array) -> Params:
        """New float32 parameters, as a nested dict.

        Call it under `jax.eval_shape` for shapes only, or under `jax.jit` with `out_shardings` to
        create each array on its devices.
        """

    def specs(self, config: Any) -> Params:
        """The tree of `init`, with a `Spec` in place of each array."""

    def layout(self, config: Any) -> Layout:
        """Its blocks in order."""

    def forward(self, params: Params, batch: Batch, config: Any, context: Context) -> Hidden:
        """Final hidden states of `batch`: int32 (B, T) `inputs`, `segments` and `positions`."""

    def unembedding(self, params: Params, config: Any) -> jax.Array:
        """The matrix from hidden states to logits, (D, V) in its stored dtype."""

    def logits(self, x: jax.Array, params: Params, config: Any) -> jax.Array:
        """float32 logits (…, V) of hidden states (…, D)."""


class Generative(Model, Protocol):
    """A family that continues text, token by token."""

    def hidden(
        self,
        params: Params,
        tokens_BT: jax.Array,
        positions_BT: jax.Array,
        attend: Attend,
        config: Any,
        compute: ComputeConfig,
        caches: Cache,
    ) -> tuple[jax.Array, Cache, Routing | None]:
        """Final hidden states of `tokens_BT`, and the caches with their keys and values.

        Args:
          params: tree of `init`, or with each layer apart (`family.SEPARATE`).
          attend: reads and extends a layer's cache.
          caches: tree whose leaves have leading axis L, or a tuple with the tree of each layer if
            the parameters have them apart; `attend` gets one layer at a time.
        """


class Translator(Model, Protocol):
    """A family that writes a target for a source, token by token.

    The batch is the second axis of every leaf of a source and of caches, so that beams can be
    chosen without knowing the family.
    """

    def begin(
        self,
        params: Params,
        tokens_BS: jax.Array,
        segments_BS: jax.Array,
        room: int,
        config: Any,
        compute: ComputeConfig,
    ) -> tuple[Cache, Cache]:
        """What the decoder reads of the sources, computed once, and its caches before a target.

        Args:
          segments_BS: int32, 0 at padding.
          room: most tokens of a target.
        """

    def step(
        self,
        params: Params,
        token_B: jax.Array,
        i: jax.Array,
        source: Cache,
        own: Cache,
        config: Any,
        compute: ComputeConfig,
    ) -> tuple[jax.Array, Cache]:
        """Hidden states (B, D) after place i of each target, as the output matrix takes them, and
        the caches.

        Args:
          token_B: the token before place i.
          source, own: as `begin` or the step before returned them.
        """


def model_of(config: Any) -> Any:
    """The family of an architecture: a `Model`, and `Generative` if it is a decoder.

    Args:
      config: `RunConfig.model`, or an `EncoderConfig`.
    """
    return load_part("model.kind", config.kind)


def parameter_shapes(config: Any) -> Params:
    """The tree of `init` as `jax.ShapeDtypeStruct`."""
    shapes: Params = jax.eval_shape(lambda: model_of(config).init(config, jax.random.key(0)))
    return shapes


def context_of(config: RunConfig) -> Context:
    """How a run executes its model, on the mesh in context."""
    parallel, stages = config.parallel, axis_shards("pipeline")
    schedule = None
    if stages > 1:
        schedule = Schedule(stages, parallel.rounds, parallel.pieces or stages)
    return Context(config.compute, parallel.context_kind, schedule)
