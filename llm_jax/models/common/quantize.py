"""Weight matmuls in 8 bits, by the library qwix: only the forward pass is quantised.

Each row of the activations and each column of the weights has its own scale, from its largest
absolute value (per-token and per-channel absmax; LLM.int8(), Dettmers et al. 2022). The backward
pass uses the operands before rounding, in the compute dtype (straight-through estimator, Bengio et
al. 2013), because 8 bits lose the outliers of gradients.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from llm_jax.config import ComputeConfig
from llm_jax.config.extras import require_packages
from llm_jax.models.common.layers import Product, dense

DTYPES = {"int8": jnp.int8, "fp8": jnp.float8_e4m3fn}


def require_library(compute: ComputeConfig) -> None:
    """Raises `UserError` if `compute.quantize` needs qwix and it is not installed."""
    if compute.quantize != "none":
        what = f"compute.quantize = {compute.quantize!r}"
        require_packages(what, "qwix", way_out="or set it to 'none'")


def matmul_of(kind: str) -> Product:
    """`dense`, with a forward pass in 8 bits if `kind` is a key of `DTYPES`; "none": as it is."""
    if kind == "none":
        return dense
    return functools.partial(dense, product=functools.partial(quantized_product, kind=kind))


def quantized_product(x: jax.Array, w: jax.Array, kind: str) -> jax.Array:
    """x (…, D) times w (D, F), both rounded to `kind` (a key of `DTYPES`); in the dtype of `x`."""
    import qwix

    rows = list(range(x.ndim - 1))
    x_8 = qwix.quantize(x, DTYPES[kind], channelwise_axes=rows)
    w_8 = qwix.quantize(w, DTYPES[kind], channelwise_axes=[1])
    return qwix.dot_general(x_8, w_8, (((x.ndim - 1,), (0,)), ((), ()))).astype(x.dtype)
