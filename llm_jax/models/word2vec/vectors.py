"""word2vec (Mikolov et al. 2013), behind `protocol.Model`: two tables of vectors, and no layers.

embed/tokens (V, D)      of tokens: what `llm-jax embed` and an export read
context/tokens (V, D)    of the tokens that are predicted

Letters: B batch, N places of a row, D size of a vector.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from llm_jax.config import ComputeConfig, Word2VecConfig
from llm_jax.models.common.family import Stacked
from llm_jax.models.common.layers import project, zeros
from llm_jax.models.common.parameter import Spec
from llm_jax.models.common.stack import Layout
from llm_jax.models.protocol import Batch, Context, Hidden, Params
from llm_jax.parallel.mesh import constrain, gather_fsdp

TABLE = ("vocab", "embed")


class Tables(nnx.Module):
    """Both tables, as the authors' program begins: small and uniform, and zeros."""

    def __init__(self, config: Word2VecConfig, rngs: nnx.Rngs):
        shape, most = (config.vocab_size, config.d_model), 0.5 / config.d_model
        small = jax.random.uniform(rngs.params(), shape, jnp.float32, -most, most)
        self.embed = nnx.Dict({"tokens": nnx.Param(small, spec=Spec(TABLE, "table"))})
        self.context = nnx.Dict({"tokens": zeros(shape, TABLE, "table")})


class Word2Vec(Stacked):
    """The family `word2vec`. The objective `negative_samples` trains it."""

    ends = Tables

    def layout(self, config: Word2VecConfig) -> Layout:
        """No blocks."""
        return Layout((), ())

    def forward(
        self, params: Params, batch: Batch, config: Word2VecConfig, context: Context
    ) -> Hidden:
        """The vectors of `inputs`, whatever is beside them."""
        return Hidden(self.embedded(params, batch["inputs"], context.compute))

    def predicted(self, params: Params, tokens_BN: jax.Array, compute: ComputeConfig) -> jax.Array:
        """The vectors of tokens that are predicted, (B, N, D) in the compute dtype."""
        table_VD = gather_fsdp(params["context"]["tokens"], TABLE)
        x_BND = table_VD.astype(jnp.dtype(compute.dtype))[tokens_BN]
        return constrain(x_BND, "batch", None, "act_embed")

    def unembedding(self, params: Params, config: Word2VecConfig) -> jax.Array:
        """The table of predicted tokens, (D, V) in its stored dtype, gathered."""
        return gather_fsdp(params["context"]["tokens"], TABLE).T

    def logits(self, x: jax.Array, params: Params, config: Word2VecConfig) -> jax.Array:
        """float32 products (…, V) of vectors (…, D) with all predicted tokens. They are not the
        logits of a softmax: their sigmoids tell a pair of the text from one with a sample."""
        return project(x, self.unembedding(params, config), None)


WORD2VEC = Word2Vec()
