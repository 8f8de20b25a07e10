"""Matmuls of weights in 8 bits, through qwix: forward quantised, gradients straight through.

Each row of the activations and each column of the weights has its own scale, its largest absolute
value (per-token and per-channel absmax; LLM.int8(), Dettmers et al. 2022). The backward pass takes
the operands as they were (straight-through estimator, Bengio et al. 2013) in the compute dtype:
gradients have outliers that 8 bits lose.
"""

from __future__ import annotations

import importlib.util

import jax
import jax.numpy as jnp

from llm_jax.config import ComputeConfig, UserError

DTYPES = {"int8": jnp.int8, "fp8": jnp.float8_e4m3fn}


def require_library(compute: ComputeConfig) -> None:
    """Raises `UserError` if matmuls are to be quantised and qwix is not installed."""
    if compute.quantize != "none" and importlib.util.find_spec("qwix") is None:
        raise UserError(
            f"compute.quantize is {compute.quantize!r}, which needs the library qwix: "
            "pip install \"llm-jax[quantize]\", or set it to 'none'."
        )


def quantized_product(x: jax.Array, w: jax.Array, kind: str) -> jax.Array:
    """x (…, D) times w (D, F), both rounded to `kind`, in the dtype of `x`."""
    import qwix

    rows = list(range(x.ndim - 1))
    x_8 = qwix.quantize(x, DTYPES[kind], channelwise_axes=rows)
    w_8 = qwix.quantize(w, DTYPES[kind], channelwise_axes=[1])
    return qwix.dot_general(x_8, w_8, (((x.ndim - 1,), (0,)), ((), ()))).astype(x.dtype)
