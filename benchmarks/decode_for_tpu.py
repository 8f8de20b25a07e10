"""The engine's programs, compiled for a TPU slice, with and without the orders of axes for TPUs.

    python benchmarks/decode_for_tpu.py llama3_8b --topology v5e-4 [--layers 2] [--slots 32]

It needs the TPU compiler and no TPU. All chips share each matrix (`tensor`). For calls of 1 and of
16 steps, in which all texts are as long as the cache, it prints the compiler's own estimate of the
cycles of a chip, and the memory that the call takes beside weights and cache; `usual` is with the
cache as (slots, heads, columns, head size) and weights as they are written, `ratio` is how many
times the cycles it needs. The compiler has no estimate for collectives and for the grouped product
of experts. A few layers are enough: the others are like them.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest import mock

from llm_jax.config import ComputeConfig, ModelConfig, ParallelConfig, load
from llm_jax.infer.decoder import compute_for_inference
from llm_jax.infer.engine import cache, tpu_layout
from llm_jax.infer.engine.ahead import Ahead, ahead
from llm_jax.infer.engine.arrays import STEPS
from llm_jax.infer.engine.programs import Shapes
from llm_jax.infer.engine.weights import untied
from llm_jax.parallel.mesh import make_mesh
from llm_jax.preflight.hlo import Program
from llm_jax.preflight.topology import devices, find

CHUNK = 512


@contextmanager
def usual_order() -> Iterator[None]:
    with ExitStack() as patches:
        patches.enter_context(mock.patch.object(cache, "columns_first", lambda: False))
        patches.enter_context(mock.patch.object(tpu_layout, "as_read", lambda where, spec: where))
        yield


def figures(made: Ahead) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, lowered, counts in (
        ("decode", made.decode, (1, STEPS)),
        ("piece", made.piece, (1,)),
    ):
        program = lowered.compile()
        text, memory = program.as_text(), program.memory_analysis()
        assert text is not None and memory is not None
        for steps in counts:
            found[f"{name}_{steps}"] = Program(text, steps).estimated_cycles()
        found[f"{name}_temporary_mb"] = memory.temp_size_in_bytes / 1e6
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="recipe of a decoder")
    parser.add_argument("--topology", default="v5e-4")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--slots", type=int, default=32)
    parser.add_argument("--max-len", type=int, default=2048)
    args = parser.parse_args()
    model = load(args.model).model
    assert isinstance(model, ModelConfig)
    length = max(args.max_len, model.max_seq_len)
    model = dataclasses.replace(model, num_layers=args.layers, max_seq_len=length)
    chips = devices(find(args.topology))
    shapes = Shapes(
        untied(model),
        compute_for_inference(ComputeConfig(dtype="bfloat16")),
        model.vocab_size,
        args.slots,
        args.max_len,
        CHUNK,
        make_mesh(ParallelConfig(data=1, tensor=len(chips)), chips),
    )
    ours = figures(ahead(shapes))
    with usual_order():
        usual = figures(ahead(shapes))
    for name, value in ours.items():
        ratio = round(usual[name] / value, 2)
        line = {"what": name, "ours": round(value, 1), "usual": round(usual[name], 1)}
        print(json.dumps(line | {"ratio": ratio}), flush=True)


if __name__ == "__main__":
    main()
