"""The train steps of llm_jax and MaxText, compiled for the same TPU slice and compared.

  python benchmarks/preflight_vs_maxtext.py --python3.12 $(which python3.12)

Both have the same model (llama3-8B), topology, batch, sequence length, mesh and full recomputation,
and use the splash kernel. MaxText is installed from the package index into its own environment
(4 GB, under the cache folder or --environment), and compiled by its own `train_compile`.
`llm_jax.preflight.hlo` counts the operations in both programs. They are compiled one after another,
each in a new process. On a shared machine, compare the CPU seconds of the compiles, not the wall
time. MaxText has its own versions of JAX and libtpu; both versions are printed. To compare with the
same compiler, run this in a Python 3.12 environment with MaxText's versions.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from llm_jax.facts.attached import WITHOUT_TPU

MAXTEXT = "maxtext[tpu]==0.2.5"
TOPOLOGY, FSDP, TENSOR, BATCH, LENGTH = "v5p-128", 32, 2, 128, 8192
FLAGS = [
    "model_name=llama3-8b",
    f"compile_topology={TOPOLOGY}",
    "compile_topology_num_slices=1",
    "per_device_batch_size=2",
    f"max_target_length={LENGTH}",
    f"ici_fsdp_parallelism={FSDP}",
    f"ici_tensor_parallelism={TENSOR}",
    "allow_split_physical_axes=true",
    "remat_policy=full",
    "attention=flash",
    "dataset_type=synthetic",
]
# Runs in MaxText's environment: calls its `train_compile`, and writes the compiled step to a file.
DRIVER = """
import json, sys, time
from importlib.metadata import version
import jax
from maxtext.trainers.pre_train import train_compile
plain = jax.stages.Lowered.compile
def compile(self, *args, **options):
    start, busy = time.monotonic(), time.process_time()
    made = plain(self, *args, **options)
    stats = made.memory_analysis()
    json.dump({
        "compile_seconds": time.monotonic() - start,
        "compile_cpu_seconds": time.process_time() - busy,
        "versions": [f"{name} {version(name)}" for name in ("jax", "libtpu")],
        "arguments": stats.argument_size_in_bytes,
        "output": stats.output_size_in_bytes,
        "aliased": stats.alias_size_in_bytes,
        "temp": stats.temp_size_in_bytes,
        "generated_code": stats.generated_code_size_in_bytes,
        "optimal_seconds": made.cost_analysis().get("optimal_seconds"),
        "text": made.as_text(),
    }, open(sys.argv[1], "w"))
    return made
jax.stages.Lowered.compile = compile
train_compile.main(["train_compile", *sys.argv[2:]])
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    parser.add_argument("--python3.12", dest="python", default="python3.12")
    parser.add_argument("--environment", type=Path, default=Path(cache) / "llm_jax" / "maxtext")
    args = parser.parse_args()
    theirs = maxtext(install(args.environment, args.python), args.environment / "step.json")
    ours = ours_now()
    print(f"{'':32}{'llm_jax':>12}{'MaxText':>12}")
    for name, unit, scale in (
        ("arguments", "GB", 1e9),
        ("temp", "GB", 1e9),
        ("peak", "GB", 1e9),
        ("collective_bytes", "GB", 1e9),
        ("optimal_seconds", "s", 1),
        ("xla_seconds", "s", 1),
        ("compile_seconds", "s", 1),
        ("compile_cpu_seconds", "s", 1),
    ):
        print(f"{name:28}{unit:>4}{ours[name] / scale:12.3f}{theirs[name] / scale:12.3f}")
    for title, side in (("llm_jax", ours), ("MaxText", theirs)):
        print(f"{title}: {', '.join(side['versions'])}")
        for kind, axes, count, size in side["exchanges"]:
            print(f"{title}: {kind:20}{axes:16}{count:8,}{size / 1e9:10.3f} GB")


def install(folder: Path, python: str) -> Path:
    """The Python of MaxText's environment, which is created on the first run."""
    interpreter = folder / "bin" / "python"
    if not interpreter.exists():
        subprocess.run([python, "-m", "venv", folder], check=True)
        subprocess.run([interpreter, "-m", "pip", "install", "--quiet", MAXTEXT], check=True)
    return interpreter


def maxtext(interpreter: Path, out: Path) -> dict[str, Any]:
    environment = os.environ | WITHOUT_TPU | {"JAX_PLATFORMS": "cpu"}
    environment.pop("PYTHONPATH", None)
    subprocess.run(
        [interpreter, "-c", DRIVER, out, *FLAGS], check=True, env=environment, stdout=sys.stderr
    )
    found = json.loads(out.read_text(encoding="utf-8"))
    found["peak"] = (
        found["arguments"]
        + found["output"]
        - found["aliased"]
        + found["temp"]
        + found["generated_code"]
    )
    return found | counted(found.pop("text"))


def ours_now() -> dict[str, Any]:
    """The same figures of llm_jax, from a separate process, without the cache of results."""
    code = (
        "import json, sys\n"
        "from benchmarks.preflight_vs_maxtext import compiled\n"
        "print(json.dumps(compiled()))"
    )
    root = Path(__file__).resolve().parent.parent
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, env=environment, stdout=subprocess.PIPE, cwd=root
    )
    return json.loads(done.stdout)


def compiled() -> dict[str, Any]:
    import time
    from importlib.metadata import version

    import numpy as np

    from llm_jax.commands.overrides import override
    from llm_jax.parallel.mesh import make_mesh
    from llm_jax.preflight.measure import hbm_bytes
    from llm_jax.preflight.topology import devices, find
    from llm_jax.train.step import lower_train_step

    flags = [f"--parallel.fsdp={FSDP}", f"--parallel.tensor={TENSOR}", "--parallel.data=1"]
    flags += [f"--data.batch-size={BATCH}", f"--data.seq-len={LENGTH}", "--compute.remat=full"]
    config = override("llama3_8b", flags, verb="train")
    mesh = make_mesh(config.parallel, devices(find(TOPOLOGY)))
    lowered = lower_train_step(config, mesh, np.ones(config.model.vocab_size, np.int32))
    start, busy = time.monotonic(), time.process_time()
    made = lowered.compile()
    found: dict[str, Any] = {
        "compile_seconds": time.monotonic() - start,
        "compile_cpu_seconds": time.process_time() - busy,
        "versions": [f"{name} {version(name)}" for name in ("jax", "libtpu")],
    }
    cost, text = made.cost_analysis(), made.as_text()
    assert cost is not None
    assert text is not None
    return found | hbm_bytes(made) | {"optimal_seconds": cost["optimal_seconds"]} | counted(text)


def counted(text: str) -> dict[str, Any]:
    """Collectives of a compiled step on the mesh fsdp × tensor, and XLA's estimated seconds."""
    import jax

    from llm_jax.preflight.exchanges import by_axes
    from llm_jax.preflight.hlo import Program
    from llm_jax.preflight.measure import CLOCK

    program = Program(text)
    mesh = jax.sharding.AbstractMesh((FSDP, TENSOR), ("fsdp", "tensor"))
    found = by_axes(program.collectives(), mesh)
    return {
        "collective_bytes": sum(one.bytes for one in found),
        "xla_seconds": program.estimated_cycles() / CLOCK["v5p"],
        "exchanges": [(one.kind, " x ".join(one.axes), one.count, one.bytes) for one in found],
    }


if __name__ == "__main__":
    main()
