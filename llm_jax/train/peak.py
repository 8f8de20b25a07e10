"""The peak speed that MFU is relative to: of the data sheet, or measured."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from llm_jax.config import RunConfig
from llm_jax.facts.hardware import chip
from llm_jax.facts.train_flops import train_flops

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
    if train_flops(config) is None:
        return None, f"no MFU, since the FLOPs of {config.model.kind!r} are not known"
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
