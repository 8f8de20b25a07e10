"""The layers of a block as functional NNX modules: parameters with logical axes, and a forward.

The only arrays of a module are `nnx.Param`s. Each carries `spec`, the names of its axes and its
role (`parameter.py`). Matrices are initialised from N(0, σ²), and matrices that write to the
residual stream from N(0, σ²/2L) (GPT-2, Radford et al. 2019).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from llm_jax.config import ModelConfig
from llm_jax.model.parameter import Role, Spec
from llm_jax.model.quantize import quantized_product
from llm_jax.model.rope import apply_rope
from llm_jax.parallel.mesh import Logical, axes_of, constrain


def init_std(config: ModelConfig) -> float:
    """Standard deviation of the initial matrices: √(2/5D), or 0.02 if the width is 1,000 or more.

    √(2/5D) is the small initialisation of Nguyen & Salazar 2019. With 0.02, models of width 64 or
    128 stay at the unigram loss for the first hundreds of steps (docs/log.md).
    """
    return max(0.02, math.sqrt(2 / (5 * config.d_model)))


Cache = Any
"""What an `Attend` keeps between calls for one layer; None in training."""
Attend = Callable[[jax.Array, jax.Array, jax.Array, int | None, Cache], tuple[jax.Array, Cache]]
"""attend(q_BTNH, k_BTKH, v_BTKH, window, cache) -> (out_BTNH, cache)."""


def normal(
    rngs: nnx.Rngs, shape: tuple[int, ...], logical: Logical, std: float, role: Role = "matrix"
) -> nnx.Param:
    """A float32 parameter from N(0, std²); `logical` names its axes."""
    value = std * jax.random.normal(rngs.params(), shape, jnp.float32)
    return nnx.Param(value, spec=Spec(logical, role))


def zeros(shape: tuple[int, ...], logical: Logical, role: Role = "vector") -> nnx.Param:
    """A float32 parameter of zeros; `logical` names its axes."""
    return nnx.Param(jnp.zeros(shape, jnp.float32), spec=Spec(logical, role))


def dense(x: jax.Array, w: jax.Array, quantize: str = "none") -> jax.Array:
    """x (…, D) times w (D, F), (…, F) in the dtype of `x`; named "dense" for the remat policies.

    `quantize` rounds both operands to 8 bits first (`model/quantize.py`). It does not change the
    gradients.

    The gradients equal those of `einsum`, but no operand is transposed in memory. JAX's own rule
    makes XLA on CPU copy every activation (benchmarks/train_step.py).
    """
    return checkpoint_name(_dense(x, w, quantize), "dense")


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _dense(x: jax.Array, w: jax.Array, quantize: str) -> jax.Array:
    if quantize != "none":
        return quantized_product(x, w, quantize)
    return jnp.einsum("...D,DF->...F", x, w)


def _dense_fwd(
    x: jax.Array, w: jax.Array, quantize: str
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _dense(x, w, quantize), (x, w)


def dense_gradients(x: jax.Array, w: jax.Array, dy: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Gradients of `dense` with respect to x (…, D) and w (D, F), given dy (…, F)."""
    dx = jax.lax.dot_general(dy, w, (((dy.ndim - 1,), (1,)), ((), ())))
    if not axes_of("stream_length"):  # merging a split length with the batch would gather it
        x, dy = x.reshape(-1, x.shape[-1]), dy.reshape(-1, dy.shape[-1])
    rows = tuple(range(x.ndim - 1))
    return dx, jax.lax.dot_general(x, dy, ((rows, rows), ((), ())))


_dense.defvjp(_dense_fwd, lambda _, saved, dy: dense_gradients(saved[0], saved[1], dy))


class Norm(nnx.Module):
    """RMSNorm (Zhang & Sennrich 2019) or LayerNorm, computed in float32."""

    def __init__(self, config: ModelConfig, size: int, kind: str | None = None):
        self.kind = kind or config.norm
        self.eps = config.norm_eps
        self.plus_one = config.norm_plus_one
        start = jnp.zeros if self.plus_one else jnp.ones
        self.scale = nnx.Param(start((size,), jnp.float32), spec=Spec(("norm",), "vector"))
        if self.kind == "layernorm":
            self.bias = zeros((size,), ("norm",))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalises the last axis; same shape and dtype as `x`."""
        y = x.astype(jnp.float32)
        if self.kind == "layernorm":
            y -= jnp.mean(y, axis=-1, keepdims=True)
        y *= jax.lax.rsqrt(jnp.mean(y * y, axis=-1, keepdims=True) + self.eps)
        y *= 1 + self.scale[...] if self.plus_one else self.scale[...]
        if self.kind == "layernorm":
            y += self.bias[...]
        return y.astype(x.dtype)


class Attention(nnx.Module):
    """Multi-head or grouped-query self-attention; `attend` decides which keys a query sees."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        D, N, K, H = config.d_model, config.num_heads, config.num_kv_heads, config.head_dim
        self.config = config
        std = init_std(config)
        self.q = normal(rngs, (D, N, H), ("embed", "heads", "head_dim"), std)
        self.k = normal(rngs, (D, K, H), ("embed", "kv_heads", "head_dim"), std)
        self.v = normal(rngs, (D, K, H), ("embed", "kv_heads", "head_dim"), std)
        out_std = std / math.sqrt(2 * config.num_layers)
        self.o = normal(rngs, (N, H, D), ("heads", "head_dim", "embed"), out_std)
        if config.qkv_bias:
            self.q_bias = zeros((N, H), ("heads", "head_dim"))
            self.k_bias = zeros((K, H), ("kv_heads", "head_dim"))
            self.v_bias = zeros((K, H), ("kv_heads", "head_dim"))
        if config.out_bias:
            self.o_bias = zeros((D,), ("norm",))
        if config.qk_norm:
            self.q_norm = Norm(config, H, "rmsnorm")
            self.k_norm = Norm(config, H, "rmsnorm")

    def __call__(
        self,
        x_BTD: jax.Array,
        rope: tuple[jax.Array, jax.Array] | None,
        attend: Attend,
        window: int | None,
        cache: Cache,
        quantize: str = "none",
    ) -> tuple[jax.Array, Cache]:
        """Output, (B, T, D) in the dtype of `x_BTD`, and the updated cache.

        Args:
          rope: sin and cos, (B, T, H/2) float32 each; None for learned positions.
          window: number of keys that a query sees, including its own; None: no limit.
        """
        config, dtype = self.config, x_BTD.dtype
        q_BTNH, k_BTKH, v_BTKH = (self._heads(x_BTD, w, quantize) for w in (self.q, self.k, self.v))
        if config.qkv_bias:
            q_BTNH += self.q_bias[...].astype(dtype)
            k_BTKH += self.k_bias[...].astype(dtype)
            v_BTKH += self.v_bias[...].astype(dtype)
        if config.qk_norm:
            q_BTNH, k_BTKH = self.q_norm(q_BTNH), self.k_norm(k_BTKH)
        if rope is not None:
            q_BTNH, k_BTKH = apply_rope(q_BTNH, rope), apply_rope(k_BTKH, rope)
        q_BTNH = constrain(q_BTNH, "batch", "length", "heads", "head_dim")
        k_BTKH = constrain(k_BTKH, "batch", "length", "kv_heads", "head_dim")
        v_BTKH = constrain(v_BTKH, "batch", "length", "kv_heads", "head_dim")
        out_BTNH, cache = attend(q_BTNH, k_BTKH, v_BTKH, window, cache)
        w_nD = self.o[...].reshape(-1, config.d_model).astype(dtype)
        out_BTD = dense(out_BTNH.reshape(*x_BTD.shape[:2], -1), w_nD, quantize)
        if config.out_bias:
            out_BTD += self.o_bias[...].astype(dtype)
        return out_BTD, cache

    def _heads(self, x_BTD: jax.Array, w_DNH: nnx.Param, quantize: str) -> jax.Array:
        D, N, H = w_DNH.shape
        y_BTn = dense(x_BTD, w_DNH[...].reshape(D, N * H).astype(x_BTD.dtype), quantize)
        return y_BTn.reshape(*x_BTD.shape[:2], N, H)


class Mlp(nnx.Module):
    """SwiGLU or GeGLU (Shazeer 2020), or the two-matrix GELU MLP of GPT-2."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs, d_ff: int | None = None):
        D, F = config.d_model, d_ff or config.d_ff
        self.config = config
        std = init_std(config)
        self.up = normal(rngs, (D, F), ("embed", "mlp"), std)
        out_std = std / math.sqrt(2 * config.num_layers)
        self.down = normal(rngs, (F, D), ("mlp", "embed"), out_std)
        if config.gated:
            self.gate = normal(rngs, (D, F), ("embed", "mlp"), std)
        if config.mlp_bias:
            self.up_bias = zeros((F,), ("mlp",))
            self.down_bias = zeros((D,), ("norm",))
            if config.gated:
                self.gate_bias = zeros((F,), ("mlp",))

    def __call__(self, x_BTD: jax.Array, quantize: str = "none") -> jax.Array:
        """Output, (B, T, D) in the dtype of `x_BTD`."""
        config, dtype = self.config, x_BTD.dtype
        up_BTF = self._project(x_BTD, "up", quantize)
        if config.activation == "gelu":
            h_BTF = jax.nn.gelu(up_BTF, approximate=True)
        elif config.activation == "geglu":
            h_BTF = jax.nn.gelu(self._project(x_BTD, "gate", quantize), approximate=True) * up_BTF
        else:
            h_BTF = jax.nn.silu(self._project(x_BTD, "gate", quantize)) * up_BTF
        h_BTF = constrain(h_BTF, "batch", "length", "mlp")
        out_BTD = dense(h_BTF, self.down[...].astype(dtype), quantize)
        return out_BTD + self.down_bias[...].astype(dtype) if config.mlp_bias else out_BTD

    def _project(self, x_BTD: jax.Array, name: str, quantize: str) -> jax.Array:
        y_BTF = dense(x_BTD, getattr(self, name)[...].astype(x_BTD.dtype), quantize)
        if self.config.mlp_bias:
            y_BTF += getattr(self, f"{name}_bias")[...].astype(x_BTD.dtype)
        return y_BTF
