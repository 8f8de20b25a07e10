"""Compile the exact train step for a TPU slice, without a TPU, and report memory and communication.

The report has the peak memory by part, the collectives by kind and mesh axis, rooflines and XLA's
own estimate. If the step does not fit, --fix tries recomputation, smaller micro-batches and more
sharding. --search looks for the fastest mesh, recomputation and micro-batch size. --write writes
the config that they chose. Every scalar field of the config has a flag, such as --parallel.fsdp 64.
--serve compiles the programs of `llm-jax serve` instead: do weights and cache fit on one host?

example: llm-jax preflight llama3_8b --topology v5p-128
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from llm_jax.commands import count
from llm_jax.commands.overrides import override
from llm_jax.config import RunConfig, UserError, to_json
from llm_jax.config.extras import require_packages
from llm_jax.runs.files import write_texts
from llm_jax.runs.plan_file import plan_file, plan_named

OVERRIDES = True


def environment() -> dict[str, str]:
    """Compiling does not use this machine's accelerators."""
    return {"JAX_PLATFORMS": "cpu"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "config", nargs="?", metavar="CONFIG", help="recipe, run.json, or folder of a run"
    )
    parser.add_argument("--topology", metavar="NAME", help="TPU slice, such as v5p-128, v5e-256 or "
                        "v5p:4x4x4")  # fmt: skip
    parser.add_argument(
        "--slices", type=int, default=1, help="number of slices, connected over DCN (default: 1)"
    )
    parser.add_argument(
        "--fix", action="store_true", help="if the step does not fit, look for a config that does"
    )
    parser.add_argument("--search", action="store_true", help="find the fastest mesh that fits")
    parser.add_argument(
        "--serve",
        action="store_true",
        help="compile the programs of `llm-jax serve` in place of the train step",
    )
    parser.add_argument(
        "--slots", type=count, help="with --serve: texts that are made at once (default: 8)"
    )
    parser.add_argument(
        "--max-len",
        type=count,
        help="with --serve: tokens of a text (default: the model's context)",
    )
    parser.add_argument(
        "--tensor",
        type=count,
        help="with --serve: chips that share each matrix (default: as serve)",
    )
    parser.add_argument(
        "--write",
        type=Path,
        metavar="RUN.JSON",
        help="write the config that --fix or --search chose",
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    config = override(args.config, args.overrides, verb="preflight", own=args.flags)
    if args.topology is None:
        raise UserError("llm-jax preflight needs --topology: a TPU slice such as v5p-128.")
    if args.write and not (args.fix or args.search):
        raise UserError("--write writes the config that --fix or --search chose: give one of them.")
    served = {name: getattr(args, name) for name in ("slots", "max_len", "tensor")}
    for name, value in served.items():
        if value is not None and not args.serve:
            raise UserError(f"--{name.replace('_', '-')} goes with --serve: give both.")
    if args.serve and (args.fix or args.search):
        raise UserError("--fix and --search look for a train step that fits: leave out --serve.")
    require_packages("Compiling for TPUs", "libtpu")
    if args.serve:
        return _serving(config, args)
    from llm_jax.preflight.cache import measured
    from llm_jax.preflight.remedy import fix
    from llm_jax.preflight.search import search
    from llm_jax.preflight.topology import find

    machine = find(args.topology, args.slices)
    chosen = config
    if args.search:
        made = search(config, machine)
    else:
        found = measured(config, machine)
        made = {"found": found, "config": config if found["fits"] else None}
        if args.fix and not found["fits"]:
            made = fix(config, machine, found)
    result = made["found"] | {k: v for k, v in made.items() if k not in ("found", "config")}
    chosen = made["config"]
    if args.write and chosen is not None:
        texts, beside = {args.write: to_json(chosen)}, plan_file(args.write)
        if plan := plan_named(args.config):
            texts[beside] = to_json(plan)
        write_texts(texts)
        if plan is None:
            beside.unlink(missing_ok=True)  # of the run that was here before
        result["written"] = str(args.write)
    return result | {"exit_code": 0 if result["fits"] else 1}


def _serving(config: RunConfig, args: argparse.Namespace) -> dict[str, Any]:
    from llm_jax.infer.engine.settings import EngineSettings
    from llm_jax.preflight.serving import measure_serving
    from llm_jax.preflight.topology import find

    given = {"slots": args.slots, "max_len": args.max_len}
    settings = EngineSettings(**{name: n for name, n in given.items() if n is not None})
    result = measure_serving(config, find(args.topology, args.slices), settings, args.tensor)
    return result | {"exit_code": 0 if result["fits"] else 1}


def text(result: dict[str, Any]) -> str:
    if "slots" in result:
        from llm_jax.preflight import serving

        return "\n".join(serving.lines(result))
    from llm_jax.preflight.table import lines

    return "\n".join(lines(result))
