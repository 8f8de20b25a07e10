"""What depends on the kind of device: compiler options, and the peak for MFU."""

from __future__ import annotations

import contextlib
import functools
import operator
import time
from pathlib import Path

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from llm_jax.config import RunConfig, require
from llm_jax.plan.counts import token_flops
from llm_jax.plan.hardware import chip

# JAX's `device_kind` → (chip of the hardware table, devices of that kind per chip).
DEVICE_KINDS = {
    "TPU v4": ("v4", 1),
    "TPU v5 lite": ("v5e", 1),
    "TPU v5": ("v5p", 1),
    "TPU v5p": ("v5p", 1),
    "TPU v6 lite": ("v6e", 1),
    "TPU7x": ("tpu7x", 2),
    "NVIDIA A100-SXM4-80GB": ("a100", 1),
    "NVIDIA H100 80GB HBM3": ("h100", 1),
    "NVIDIA H200": ("h200", 1),
    "NVIDIA B200": ("b200", 1),
}


AGREE, WAITED = 0.1, 0.25
"""Two measurements of the peak may differ by at most the share `AGREE`. This process's threads may
wait for a processor for at most the share `WAITED` of their time."""
INLINE_FLOPS = 1e11
"""A CPU runs steps of at least this many FLOPs (about half a second) in the calling thread."""


def runs_inline(config: RunConfig) -> bool:
    """Whether a CPU runs the steps of `config` in the thread that calls them.

    glibc keeps the memory that the main thread frees (see `environment` in commands/train.py).
    Large blocks that other threads free go back to the system at once, so the temporaries of a
    large step would be zeroed again at each step. For small steps, the Python code between two
    steps costs more (benchmarks/train_step.py).
    """
    flops = config.batch_tokens * token_flops(config.model, config.data.seq_len).train
    return flops >= INLINE_FLOPS


def dispatch_for(config: RunConfig) -> None:
    """Tells JAX's CPU client in which thread to run the steps. Call it before JAX starts."""
    jax.config.update("jax_cpu_enable_async_dispatch", not runs_inline(config))


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


def measured_matmul_peak(dtype: str, size: int = 1024, repeats: int = 8) -> float:
    """FLOP/s of the fastest of `repeats` square matmuls on the default device."""
    a = jnp.ones((size, size), dtype)
    multiply = jax.jit(lambda a: jnp.dot(a, a, preferred_element_type=jnp.float32))
    multiply(a).block_until_ready()
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        multiply(a).block_until_ready()
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def peak_flops(config: RunConfig, mesh: Mesh) -> tuple[float | None, str]:
    """Peak FLOP/s of all devices of the mesh together, and where the figure is from.

    It is from the hardware table if the device is in it. Otherwise (a CPU) a matmul is timed; the
    virtual CPU devices of one process count as the one machine that they share. It is None if the
    machine did other work at the same time: the MFU would not be comparable with other starts.
    """
    device, count = mesh.devices.flat[0], mesh.devices.size
    if device.device_kind in DEVICE_KINDS:
        name, per_chip = DEVICE_KINDS[device.device_kind]
        known = chip(name).bf16_flops / per_chip
        return known * count, f"peak {known * count / 1e12:.0f} TFLOP/s (bfloat16, data sheet)"
    peak, why_not = quiet_matmul_peak(config.compute.dtype)
    if peak is None:
        return None, f"no MFU, since {why_not}"
    peak *= jax.process_count() if device.platform == "cpu" else count
    return peak, f"peak {peak / 1e9:.0f} GFLOP/s ({config.compute.dtype} matmul, measured now)"


def quiet_matmul_peak(dtype: str) -> tuple[float | None, str]:
    """FLOP/s of a matmul on the default device, or None and why it is not known.

    It is timed twice. The two must agree, and the threads of this process must not have waited long
    for a processor. On two quiet cores they wait for each other for 16% of the time.
    """
    before = _processor_times()
    first, second = (measured_matmul_peak(dtype) for _ in range(2))
    ran, waited = (now - then for now, then in zip(_processor_times(), before, strict=True))
    if waited > WAITED * (ran + waited):
        share = waited / (ran + waited)
        return None, f"its measurement waited for a processor for {share:.0%} of the time"
    if abs(first - second) > AGREE * max(first, second):
        rates = f"{first / 1e9:.0f} and {second / 1e9:.0f} GFLOP/s"
        return None, f"two measurements of the peak differ ({rates})"
    return max(first, second), ""


def _processor_times() -> tuple[float, float]:
    """Seconds that this process's threads ran, and that they waited for a processor (Linux)."""
    ran = waited = 0.0
    for file in Path("/proc/self/task").glob("*/schedstat"):
        with contextlib.suppress(OSError):  # a thread that has just ended
            fields = file.read_text(encoding="ascii").split()
            ran, waited = ran + int(fields[0]) / 1e9, waited + int(fields[1]) / 1e9
    return ran, waited
