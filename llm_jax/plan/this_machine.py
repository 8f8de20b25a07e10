"""This machine as a chip: its matmul peak and memory bandwidth, measured and cached.

The matmul peak is measured in a subprocess with JAX, which training uses. NumPy's BLAS has a
different peak. Without JAX, the planner measures NumPy and reports that.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np

from llm_jax.config import UserError, read_json
from llm_jax.facts.hardware import Chip, chip
from llm_jax.runs.files import keep

SIZE, ROUNDS = 2048, 10
ATTENTION = 8, 128, 512, 32
"""Shape of the measured attention: heads of all sequences, queries, keys, head size. It is a block
of queries in a small model."""
ATTAINABLE = 0.69
"""Share of its measured rates that a training step reaches on a CPU. The value 0.72, fitted with
the overhead, predicts 15 models of 0.26M to 30M parameters with 2 to 8 heads within 10% each. It
was lowered for a model of 17M that reaches 0.53 (2026-11, float32, docs/log.md)."""
STEP_OVERHEAD = 0.009
"""Fixed seconds per step."""

IDLE = 0.7
"""A measurement is kept if at least this share of the machine is idle."""

_JAX_PROGRAM = f"""
import json, time, jax, jax.numpy as jnp
import numpy as np
def best(work, *operands):
    work = jax.jit(work)
    jax.block_until_ready(work(*operands))
    times = []
    for _ in range({ROUNDS}):
        start = time.perf_counter()
        jax.block_until_ready(work(*operands))
        times.append(time.perf_counter() - start)
    return min(times)
found = {{"devices": len(jax.devices()), "platform": jax.default_backend()}}
for name in ("float32", "bfloat16"):
    x = jnp.ones(({SIZE}, {SIZE}), name)
    found[name] = 2 * {SIZE}**3 / best(jnp.matmul, x, x)
heads, queries, keys, size = {ATTENTION}
def attend(q, k):
    return jax.nn.softmax(q @ k.swapaxes(1, 2)) @ k
def both(q, k):
    out, gradient = jax.vjp(attend, q, k)
    return gradient(out)
rng = np.random.default_rng(0)
q, k = (rng.standard_normal((heads, rows, size), np.float32) for rows in (queries, keys))
found["attention"] = best(both, q, k)
print(json.dumps(found))
"""


@dataclass(frozen=True)
class Measurement:
    """Measured rates of this machine."""

    cpu: str
    float32: float
    """FLOP/s of large float32 matmuls."""
    bfloat16: float
    """FLOP/s of large bfloat16 matmuls."""
    scores: float
    """Attention scores per second in both passes, not counting their matmul FLOPs."""
    bandwidth: float
    """Bytes per second that a copy reads and writes."""
    memory: float
    """Bytes of memory."""
    library: str
    date: str


def cpu_name() -> str:
    """Name of the processor and number of usable cores, such as `Xeon … x2`."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = info.read_text(encoding="utf-8", errors="replace").splitlines()
        name = next((x.split(":", 1)[1].strip() for x in lines if x.startswith("model name")), name)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{name} x{cores}"


def cache_file() -> Path:
    """The file that keeps the rates of measured machines."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "llm_jax" / "machines.json"


def measured(fresh: bool = False) -> Measurement:
    """This machine's rates: from the cache if this CPU is in it, unless `fresh`."""
    path, cpu = cache_file(), cpu_name()
    try:
        cache = read_json(path)
        if not fresh:
            return Measurement(**cache[cpu])
    except (UserError, KeyError, TypeError):
        # No cache, a damaged one, or one of another version: measure, and write a new one.
        cache = {}
    idle = idle_share()
    found = _measure(cpu)
    if idle < IDLE:
        print(
            f"Other programs use {1 - idle:.0%} of this machine, so its measured speed is too low "
            "and is not kept for later plans.",
            file=sys.stderr,
        )
        return found
    keep(path, json.dumps({**cache, cpu: found.__dict__}, indent=2))
    return found


def idle_share(seconds: float = 0.3) -> float:
    """Share of the processors' time that is idle now; 1 if the system does not report it."""
    stat = Path("/proc/stat")
    if not stat.is_file():
        return 1.0

    def times() -> np.ndarray:
        return np.array(stat.read_text(encoding="ascii").splitlines()[0].split()[1:9], float)

    before = times()
    time.sleep(seconds)
    spent = times() - before
    return float(spent[3:5].sum() / max(spent.sum(), 1.0))  # idle and waiting for a disk


def _measure(cpu: str) -> Measurement:
    rates = _jax_rates()
    library = "JAX" if rates else "NumPy, because JAX could not start"
    if rates is None:
        rate = _numpy_rate()
        rates = {"float32": rate, "bfloat16": rate, "attention": 3 * _numpy_attention_seconds()}
    return Measurement(
        cpu=cpu,
        float32=rates["float32"],
        bfloat16=rates["bfloat16"],
        scores=_score_rate(rates["attention"], rates["float32"]),
        bandwidth=_copy_rate(),
        memory=float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")),
        library=library,
        date=date.today().isoformat(),
    )


def _jax_rates() -> dict[str, float] | None:
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    environment.pop("XLA_FLAGS", None)
    done = subprocess.run(
        [sys.executable, "-c", _JAX_PROGRAM],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
        check=False,
    )
    if done.returncode:
        why = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        print(f"JAX could not measure this machine, so NumPy does: {why}", file=sys.stderr)
        return None
    return json.loads(done.stdout.splitlines()[-1])


def _numpy_rate() -> float:
    x = np.ones((SIZE, SIZE), np.float32)
    return 2 * SIZE**3 / _best(lambda: x @ x)


def _numpy_attention_seconds() -> float:
    """Seconds of the forward pass."""
    heads, queries, keys, size = ATTENTION
    rng = np.random.default_rng(0)
    q, k = (rng.standard_normal((heads, rows, size), np.float32) for rows in (queries, keys))

    def attend() -> np.ndarray:
        scores = q @ k.swapaxes(1, 2)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        return weights / weights.sum(-1, keepdims=True) @ k

    return _best(attend)


def _score_rate(seconds: float, peak: float) -> float:
    """Scores per second in a forward and a backward pass, without their 12·H FLOPs per score.

    At least a tenth of the time counts as not matmul, because two measurements differ by chance.
    """
    heads, queries, keys, size = ATTENTION
    scores = heads * queries * keys
    return scores / max(seconds - 12 * size * scores / peak, seconds / 10)


def _copy_rate() -> float:
    """Bytes read and written per second by a copy of 256 MB, far above any cache."""
    source = np.ones(2**26, np.float32)
    target = np.empty_like(source)
    return 2 * source.nbytes / _best(lambda: np.copyto(target, source))


def _best(work) -> float:
    work()
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def chip_named(name: str, fresh: bool = False) -> Chip:
    """The chip of that name; `local` is this machine, measured again if `fresh`.

    Raises:
      UserError: there is no such chip.
    """
    return local_chip(fresh) if name == "local" else chip(name)


def local_chip(fresh: bool = False) -> Chip:
    """This machine as a chip of one device."""
    found = measured(fresh)
    source = f"measured on {found.cpu} with {found.library}, {found.date}"
    memory = f"operating system, {found.date}"
    one = "one device, no network"
    return Chip(
        name="local",
        kind="cpu",
        bf16_flops=found.bfloat16,
        f32_flops=found.float32,
        score_rate=found.scores,
        step_overhead=STEP_OVERHEAD,
        hbm_bytes=found.memory,
        hbm_bandwidth=found.bandwidth,
        ici_bandwidth=found.bandwidth,
        ici_axes=1,
        dcn_bandwidth=found.bandwidth,
        pcie_bandwidth=found.bandwidth,
        chips_per_host=1,
        max_slice_chips=1,
        attainable=ATTAINABLE,
        sources={
            "bf16_flops": source,
            "f32_flops": source,
            "score_rate": source,
            "hbm_bandwidth": source,
            "hbm_bytes": memory,
            "step_overhead": "measured with small models on two CPU cores (2026-11)",
            "attainable": "share of measured rates that training steps reach on CPUs (2026-11)",
            **dict.fromkeys(("ici_bandwidth", "ici_axes", "dcn_bandwidth", "pcie_bandwidth"), one),
            **dict.fromkeys(
                ("chips_per_host", "max_slice_chips", "devices_per_chip", "cores_in_name"), one
            ),
        },
    )
