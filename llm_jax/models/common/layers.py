"""The layers of a block as functional NNX modules: parameters with logical axes, and a forward.

The only arrays of a module are `nnx.Param`s. Each carries `spec`, the names of its axes and its
role (`parameter.py`). Matrices are initialised from N(0, σ²), and matrices that write to the
residual stream from N(0, σ²/2L) (GPT-2, Radford et al. 2019).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from llm_jax.attention.mask import Attend, Cache, Mask
from llm_jax.config import ModelConfig
from llm_jax.models.common.activations import ACTIVATIONS, Xielu, gated
from llm_jax.models.common.parameter import Role, Spec
from llm_jax.models.common.rope import Rotation, apply_rope
from llm_jax.parallel.mesh import Logical, axes_of, constrain
from llm_jax.parallel.platform import platform

Product = Callable[[jax.Array, jax.Array], jax.Array]
"""product(x, w) -> y: x (…, D) times w (D, F), (…, F) in the dtype of x."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Shared:
    """What all blocks of a forward pass share. A pipeline splits its arrays along the batch."""

    attend: Attend
    rope: dict[str, Rotation] | None = None
    """By the names in `ModelConfig.rotations`; None without rotary positions."""
    matmul: Product = field(default_factory=lambda: dense, metadata={"static": True})
    """The product of activations and weights (`dense`)."""
    late_keys: bool = field(default=False, metadata={"static": True})
    """`attend` rotates the keys (`rope.rotates_late`)."""


def init_std(config: ModelConfig) -> float:
    """Standard deviation of the initial matrices: √(2/5D), or 0.02 if the width is 1,000 or more.

    √(2/5D) is the small initialisation of Nguyen & Salazar 2019. With 0.02, models of width 64 or
    128 stay at the unigram loss for the first hundreds of steps (docs/log.md).
    """
    return max(0.02, math.sqrt(2 / (5 * config.d_model)))


def normal(
    rngs: nnx.Rngs, shape: tuple[int, ...], logical: Logical, std: float, role: Role = "matrix"
) -> nnx.Param:
    """A float32 parameter from N(0, std²); `logical` names its axes."""
    value = std * jax.random.normal(rngs.params(), shape, jnp.float32)
    return nnx.Param(value, spec=Spec(logical, role))


def zeros(shape: tuple[int, ...], logical: Logical, role: Role = "vector") -> nnx.Param:
    """A float32 parameter of zeros; `logical` names its axes."""
    return nnx.Param(jnp.zeros(shape, jnp.float32), spec=Spec(logical, role))


def plain_product(x: jax.Array, w: jax.Array) -> jax.Array:
    """x (…, D) times w (D, F), (…, F) in the dtype of `x`."""
    if x.dtype == jnp.bfloat16 and platform() == "cpu":
        return _wide_product(x, w).astype(x.dtype)
    return jnp.einsum("...D,DF->...F", x, w)


def _contracted(x: jax.Array, y: jax.Array, axes: tuple[Sequence[int], Sequence[int]]) -> jax.Array:
    """x times y, summed over these axes of each, in the dtype of `x`.

    XLA on CPU multiplies bfloat16 as such only where the result is float32 and has a few rows.
    Otherwise, it converts both factors to float32 first, which takes ten times as long
    (docs/log.md).
    """
    wide = jnp.float32 if x.dtype == jnp.bfloat16 and platform() == "cpu" else None
    out = jax.lax.dot_general(x, y, (axes, ((), ())), preferred_element_type=wide)
    return out.astype(x.dtype)


FEW = 4
"""Rows from which XLA on CPU multiplies bfloat16 as such."""


def _wide_product(x: jax.Array, w: jax.Array) -> jax.Array:
    """x (…, D) times w (D, F), (…, F) in float32."""
    rows = math.prod(x.shape[:-1])
    if rows >= FEW or x.dtype != jnp.bfloat16 or platform() != "cpu":
        return jnp.einsum("...D,DF->...F", x, w, preferred_element_type=jnp.float32)
    few = jnp.pad(x.reshape(rows, -1), ((0, FEW - rows), (0, 0)))
    out = jnp.einsum("RD,DF->RF", few, w, preferred_element_type=jnp.float32)
    return out[:rows].reshape(*x.shape[:-1], -1)


def dense(x: jax.Array, w: jax.Array, product: Product = plain_product) -> jax.Array:
    """x (…, D) times w (D, F), (…, F) in the dtype of `x`; named "dense" for the remat policies.

    The gradients are those of `plain_product`, whatever `product` computes. They equal those of
    `einsum`, but no operand is transposed in memory. JAX's own rule makes XLA on CPU copy every
    activation (benchmarks/train_step.py).
    """
    return checkpoint_name(_dense(x, w, product), "dense")


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _dense(x: jax.Array, w: jax.Array, product: Product) -> jax.Array:
    return product(x, w)


def _dense_fwd(
    x: jax.Array, w: jax.Array, product: Product
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return product(x, w), (x, w)


def dense_gradients(x: jax.Array, w: jax.Array, dy: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Gradients of `dense` with respect to x (…, D) and w (D, F), given dy (…, F)."""
    dx = _contracted(dy, w, ((dy.ndim - 1,), (1,)))
    if not axes_of("stream_length"):  # merging a split length with the batch would gather it
        x, dy = x.reshape(-1, x.shape[-1]), dy.reshape(-1, dy.shape[-1])
    rows = tuple(range(x.ndim - 1))
    return dx, _contracted(x, dy, (rows, rows))


_dense.defvjp(_dense_fwd, lambda _, saved, dy: dense_gradients(saved[0], saved[1], dy))


def project(
    x: jax.Array, unembed_DV: jax.Array, softcap: float | None, bias_V: jax.Array | None = None
) -> jax.Array:
    """float32 logits (…, V) of hidden states (…, D): softcap·tanh(logits/softcap) if it is set."""
    out = _wide_product(x, unembed_DV.astype(x.dtype))
    if bias_V is not None:
        out += bias_V
    return out if softcap is None else softcap * jnp.tanh(out / softcap)


class Norm(nnx.Module):
    """RMSNorm (Zhang & Sennrich 2019) or LayerNorm over the last axes, computed in float32."""

    def __init__(
        self,
        config: ModelConfig,
        size: int | tuple[int, ...],
        kind: str | None = None,
        logical: Logical = ("norm",),
        eps: float | None = None,
    ):
        """`size` and `logical`: sizes and names of the axes over which the mean is taken."""
        shape = (size,) if isinstance(size, int) else size
        self.kind = kind or config.norm
        self.eps, self.plus_one = eps or config.norm_eps, config.norm_plus_one
        self.axes = tuple(range(-len(shape), 0))
        self.has_scale = config.norm_weights != "none"
        self.has_bias = self.kind == "layernorm" and config.norm_weights == "all"
        if self.has_scale:
            start = jnp.zeros if self.plus_one else jnp.ones
            self.scale = nnx.Param(start(shape, jnp.float32), spec=Spec(logical, "vector"))
        if self.has_bias:
            self.bias = zeros(shape, logical)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Same shape and dtype as `x`."""
        y = x.astype(jnp.float32)
        if self.kind == "layernorm":
            y -= jnp.mean(y, axis=self.axes, keepdims=True)
        y *= jax.lax.rsqrt(jnp.mean(y * y, axis=self.axes, keepdims=True) + self.eps)
        if self.has_scale:
            y *= 1 + self.scale[...] if self.plus_one else self.scale[...]
        if self.has_bias:
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
            self.q_norm, self.k_norm = self._norm(N, "heads"), self._norm(K, "kv_heads")
        if config.attn_sinks:
            self.sinks = zeros((N,), ("heads",))

    def _norm(self, heads: int, axis: str) -> Norm:
        """The norm of queries or keys: of each head, or over all of them."""
        size = self.config.head_dim
        if self.config.qk_norm_over == "head":
            return Norm(self.config, size, "rmsnorm")
        return Norm(self.config, (heads, size), "rmsnorm", (axis, "head_dim"))

    def __call__(
        self, x_BTD: jax.Array, shared: Shared, mask: Mask, cache: Cache
    ) -> tuple[jax.Array, Cache]:
        """Output, (B, T, D) in the dtype of `x_BTD`, and the updated cache."""
        config, dtype = self.config, x_BTD.dtype
        q_BTNH, k_BTKH, v_BTKH = (
            self._heads(x_BTD, w, shared.matmul) for w in (self.q, self.k, self.v)
        )
        if config.qkv_bias:
            q_BTNH += self.q_bias[...].astype(dtype)
            k_BTKH += self.k_bias[...].astype(dtype)
            v_BTKH += self.v_bias[...].astype(dtype)
        if config.qkv_clip is not None:
            q_BTNH, k_BTKH, v_BTKH = (
                jnp.clip(x, -config.qkv_clip, config.qkv_clip) for x in (q_BTNH, k_BTKH, v_BTKH)
            )
        if config.qk_norm and not config.qk_norm_after_rope:
            q_BTNH, k_BTKH = self.q_norm(q_BTNH), self.k_norm(k_BTKH)
        if shared.rope is not None and mask.rotation is not None:
            keys, queries = shared.rope[mask.rotation]
            q_BTNH = apply_rope(q_BTNH, queries or keys)
            k_BTKH = k_BTKH if shared.late_keys else apply_rope(k_BTKH, keys)
        if config.qk_norm and config.qk_norm_after_rope:
            q_BTNH, k_BTKH = self.q_norm(q_BTNH), self.k_norm(k_BTKH)
        q_BTNH = constrain(q_BTNH, "batch", "length", "heads", "head_dim")
        k_BTKH = constrain(k_BTKH, "batch", "length", "kv_heads", "head_dim")
        v_BTKH = constrain(v_BTKH, "batch", "length", "kv_heads", "head_dim")
        sinks_N = self.sinks[...] if config.attn_sinks else None
        out_BTNH, cache = shared.attend(q_BTNH, k_BTKH, v_BTKH, mask, cache, sinks_N)
        w_nD = self.o[...].reshape(-1, config.d_model).astype(dtype)
        out_BTD = shared.matmul(out_BTNH.reshape(*x_BTD.shape[:2], -1), w_nD)
        if config.out_bias:
            out_BTD += self.o_bias[...].astype(dtype)
        return out_BTD, cache

    def _heads(self, x_BTD: jax.Array, w_DNH: nnx.Param, matmul: Product) -> jax.Array:
        D, N, H = w_DNH.shape
        y_BTn = matmul(x_BTD, w_DNH[...].reshape(D, N * H).astype(x_BTD.dtype))
        return y_BTn.reshape(*x_BTD.shape[:2], N, H)


class Mlp(nnx.Module):
    """A gated MLP (Shazeer 2020), or the two-matrix MLP of GPT-2 and BERT."""

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
        if config.activation == "xielu":
            self.xielu = Xielu()

    def __call__(self, x_BTD: jax.Array, matmul: Product = dense) -> jax.Array:
        """Output, (B, T, D) in the dtype of `x_BTD`."""
        config, dtype = self.config, x_BTD.dtype
        h_BTF = self._project(x_BTD, "up", matmul)
        if config.gated:
            h_BTF = gated(config.activation, self._project(x_BTD, "gate", matmul), h_BTF)
        else:
            h_BTF = (ACTIVATIONS.get(config.activation) or self.xielu)(h_BTF)
        h_BTF = constrain(h_BTF, "batch", "length", "mlp")
        out_BTD = matmul(h_BTF, self.down[...].astype(dtype))
        return out_BTD + self.down_bias[...].astype(dtype) if config.mlp_bias else out_BTD

    def _project(self, x_BTD: jax.Array, name: str, matmul: Product) -> jax.Array:
        y_BTF = matmul(x_BTD, getattr(self, name)[...].astype(x_BTD.dtype))
        if self.config.mlp_bias:
            y_BTF += getattr(self, f"{name}_bias")[...].astype(x_BTD.dtype)
        return y_BTF
