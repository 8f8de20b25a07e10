"""Options of the XLA compiler for each kind of device."""

from __future__ import annotations

import functools
import operator

from jax.sharding import Mesh

from llm_jax.config import RunConfig, require

TPU_OPTIONS: dict[str, str | bool | int] = {
    # MiB from which a matmul and its reduce-scatter become a loop of partial matmuls and
    # permutations (collective matmul, Wang et al. 2023): never. Over an fsdp axis of 32 the parts
    # are too small, and XLA's own estimate of the step grows by 40% (docs/scale.md).
    "xla_jf_spmd_threshold_for_windowed_einsum_mib": 1_000_000,
}


PURPOSES: dict[str, dict[str, str | bool | int]] = {
    # All-gathers in pieces, each fused with a matmul that hides it.
    "async_collectives": {
        "xla_tpu_enable_async_collective_fusion": True,
        "xla_tpu_enable_async_collective_fusion_fuse_all_gather": True,
        "xla_tpu_enable_async_collective_fusion_multiple_steps": True,
        "xla_tpu_overlap_compute_collective_tc": True,
        "xla_enable_async_all_gather": True,
    },
    # Each matmul and its collective a loop of partial matmuls and permutations, at any size.
    "collective_matmul": {"xla_jf_spmd_threshold_for_windowed_einsum_mib": 0},
    # On-chip memory that one fusion may use: larger tiles, fewer reads of HBM.
    "scoped_vmem": {"xla_tpu_scoped_vmem_limit_kib": 98_304},
    # Collectives on the SparseCores (v5p, v6e, tpu7x), beside the matmuls.
    "sparsecore": {
        "xla_tpu_enable_sparse_core_collective_offload_all_gather": True,
        "xla_tpu_enable_sparse_core_collective_offload_reduce_scatter": True,
        "xla_tpu_enable_sparse_core_collective_offload_all_reduce": True,
        "xla_tpu_enable_async_collective_fusion_fuse_all_gather": False,
    },
}
"""Options of the TPU compiler by purpose, chosen with `compute.compiler`. docs/preflight.md has the
compiler's own estimate for each; the real gain shows only on a TPU."""


def compiler_options(config: RunConfig, mesh: Mesh) -> dict[str, str | bool | int]:
    """XLA options for the train and eval step on the mesh's platform.

    CPU: the YNN library makes single float32 dots slower, and bfloat16 ones faster
    (benchmarks/train_step.py).

    Raises:
      ConfigError: the chip has no unit for a purpose.
    """
    device = mesh.devices.flat[0]
    platform = device.platform
    if platform == "tpu":
        require(
            "sparsecore" not in config.compute.compiler or device.device_kind != "TPU v5 lite",
            "compute.compiler names sparsecore, but a TPU v5e has no SparseCore: leave it out.",
        )
        asked = (PURPOSES[purpose] for purpose in config.compute.compiler)
        return functools.reduce(operator.or_, asked, TPU_OPTIONS)
    if platform == "cpu" and config.compute.dtype == "float32":
        return {"xla_cpu_experimental_ynn_fusion_type": ""}
    return {}


def init_compiler_options(mesh: Mesh) -> dict[str, int]:
    """XLA options for the program that draws the initial parameters on the mesh's platform.

    CPU: the random bits are long straight code. LLVM's full optimisation of it takes four times as
    long as the lowest level, ten seconds for a small model, and the result runs no faster.
    """
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    return {"xla_backend_optimization_level": 1} if on_cpu else {}
