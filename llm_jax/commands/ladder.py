"""Fit a scaling law to your own text: nine small runs, a fit, and a test of its prediction.

The runs are three sizes times three amounts of data, each with its own full learning rate decay.
The largest run is held out, and predicted by a law fitted to the other eight. The law that is
written is fitted to all nine. Run the same command again to resume: finished runs are kept.

example: llm-jax ladder --data data/mine --minutes 15 --chip local --out ladder
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from llm_jax.commands import bootstraps, count, number
from llm_jax.config import RunConfig, UserError, from_dict, read_json, to_dict, to_json
from llm_jax.config.wording import counted
from llm_jax.runs.claim import only_writer
from llm_jax.runs.files import write_text

COMPILES = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", required=True, help="dataset folder from `llm-jax data build`")
    parser.add_argument("--flops", type=number, help="training FLOPs of all runs together")
    parser.add_argument("--minutes", type=number, help="training time of all runs together")
    parser.add_argument("--chip", default="local", help="the one chip that trains the runs; "
                        "`local` is this machine, measured (default: local)")  # fmt: skip
    parser.add_argument("--remeasure", action="store_true", help="measure `local` again")
    parser.add_argument("--family", default="qwen", help="llama, qwen, moe, gpt2 (default: qwen, "
                        "whose small models learn to copy early)")  # fmt: skip
    parser.add_argument(
        "--seq-len", type=count, default=512, help="tokens per sequence (default: 512)"
    )
    parser.add_argument("--rule", default="small", help="rule for batch size and learning rate "
                        "(default: small)")  # fmt: skip
    parser.add_argument("--step", type=number, default=1.6, help="ratio of neighbouring sizes, and "
                        "of neighbouring amounts of data (default: 1.6)")  # fmt: skip
    parser.add_argument("--name", default="ladder", help="name of the law (default: ladder)")
    parser.add_argument("--bootstraps", type=bootstraps, default=4000,
                        help="bootstrap draws for the intervals (default: 4000)")  # fmt: skip
    parser.add_argument("--out", type=Path, default=Path("ladder"),
                        help="folder for the runs and the law (default: ladder)")  # fmt: skip


def run(args: argparse.Namespace) -> dict[str, Any]:
    from llm_jax.laws.ladder_fit import law_of_ladder

    with only_writer(args.out, "llm-jax ladder"):
        configs, recipe = _planned(args)
        for place, config in enumerate(configs, 1):
            _train(config, f"run {place} of {len(configs)}")
        return law_of_ladder(
            [Path(config.out) for config in configs],
            recipe=recipe,
            name=args.name,
            bootstraps=args.bootstraps,
            out=args.out,
        )


def _planned(args: argparse.Namespace):
    """The configs of the runs: read from the folder if it holds this ladder, else planned now."""
    from llm_jax.facts import hardware
    from llm_jax.laws.hyperparameters import RULES
    from llm_jax.laws.law import Recipe
    from llm_jax.laws.published import PRESETS
    from llm_jax.plan import dataset_text
    from llm_jax.plan.ladder_runs import LadderRequest, plan_ladder
    from llm_jax.plan.this_machine import local_chip

    if (args.flops is None) == (args.minutes is None):
        raise UserError("A ladder takes one budget: give --flops or --minutes.")
    if args.name in PRESETS:
        raise UserError(f"--name {args.name!r} is the name of a published law: choose another.")
    if args.rule not in RULES:
        from llm_jax.config import nearest

        raise UserError(f"--rule is {args.rule!r}: {nearest(args.rule, RULES)}")
    source = dataset_text.read(args.data)
    if source.lost:
        print(
            f"{counted(source.lost, 'document')} could not be used when {args.data} was built: "
            "see its left_out.jsonl.",
            file=sys.stderr,
        )
    recipe = Recipe(
        rule=args.rule,
        family=args.family,
        seq_len=args.seq_len,
        vocab_size=source.vocab_size,
        text=source.name,
        fingerprint=source.fingerprint,
    )
    asked = {name: getattr(args, name) for name in ("flops", "minutes", "chip", "step")}
    asked |= asdict(recipe)
    record = args.out / "ladder.json"
    if record.is_file():
        return _recorded(record, asked), recipe
    if args.out.is_dir() and any(args.out.iterdir()):
        raise UserError(
            f"--out {str(args.out)!r} is not empty and is not a ladder: choose another."
        )
    local = args.chip == "local"
    rungs = plan_ladder(
        LadderRequest(
            text=source,
            chip=local_chip(args.remeasure) if local else hardware.chip(args.chip),
            flops=args.flops,
            minutes=args.minutes,
            family=args.family,
            seq_len=args.seq_len,
            rule=args.rule,
            step=args.step,
        )
    )
    configs = [replace(r.config, out=str(args.out / r.config.name)) for r in rungs]
    minutes = sum(rung.seconds for rung in rungs) / 60
    print(
        f"{counted(len(rungs), 'run')}, {sum(rung.flops for rung in rungs):.3g} FLOPs, about "
        f"{minutes:.1f} minutes of training steps.",
        file=sys.stderr,
    )
    asked_and_runs = {"asked": asked, "runs": [to_dict(config) for config in configs]}
    write_text(record, json.dumps(asked_and_runs, indent=2))
    return configs, recipe


def _recorded(record: Path, asked: dict[str, Any]) -> list[RunConfig]:
    """The runs of the ladder in the folder; raises `UserError` if its settings were different."""
    try:
        found = read_json(record)
        before, runs = found["asked"], [from_dict(raw, RunConfig) for raw in found["runs"]]
    except (ValueError, KeyError, TypeError, UserError) as error:
        raise UserError(f"{record} cannot be read ({error}): choose another --out.") from None
    changed = [f"{key} {before.get(key)!r} → {asked[key]!r}" for key in asked
               if before.get(key) != asked[key]]  # fmt: skip
    if changed:
        raise UserError(
            f"{record.parent} holds a ladder with other settings ({'; '.join(changed)}): give the "
            "same flags, or another --out."
        )
    return runs


def _train(config: RunConfig, which: str) -> None:
    """Trains `config` in its own process, unless its folder holds the finished run.

    Raises:
      UserError: the run failed.
      KeyboardInterrupt: the run was interrupted, and has saved its state.
    """
    from llm_jax.report.outcome import finished

    if finished(Path(config.out), config.steps):
        print(f"{which}, {config.name}: already done", file=sys.stderr)
        return
    file = Path(config.out + ".json")
    write_text(file, to_json(config))
    print(f"{which}, {config.name}", file=sys.stderr, flush=True)
    # Standard output belongs to this verb's own result.
    child = subprocess.Popen(
        [sys.executable, "-m", "llm_jax", "train", str(file), "--json"],
        stdout=subprocess.DEVNULL,
    )
    try:
        code = child.wait()
    except KeyboardInterrupt:
        child.wait()  # the terminal interrupted it too: let it save
        raise
    if code == 130:
        raise KeyboardInterrupt
    if code:
        raise UserError(
            f"Run {config.name} of the ladder failed with exit code {code} (the reason is above): "
            "fix it and run the same command again. Finished runs are kept."
        )


def text(result: dict[str, Any]) -> str:
    lines = ["  parameters     tokens  measured      fitted  difference"]
    for row in result["runs"]:
        error = row["predicted"] / row["loss"] - 1
        lines.append(
            f"  {row['params']:>10,} {row['tokens']:>10,}  {row['loss']:>8.4f}  "
            f"{row['predicted']:>10.4f}  {error:>+9.2%}"
        )
    held = result["held_out"]
    low, high = held["interval"]
    lines += [
        "",
        f"The largest run, predicted from the others: {held['predicted']:.4f} (90%: {low:.4f} to "
        f"{high:.4f}), measured {held['measured']:.4f}, {held['error']:+.2%}.",
        "",
        f"L = {result['E']:.3f} + {result['A']:.4g}/N^{result['alpha']:.3f} + "
        f"{result['B']:.4g}/D^{result['beta']:.3f}, "
        f"best N grows as C^{result['a']:.2f}.",
        *(f"note: {note}" for note in result["warnings"]),
        "",
        f"Wrote {result['law']} and {result['figure']}.",
        f"Next: llm-jax plan --law {result['law']} --chip local --chips 1 --deadline-hours 0.05",
    ]
    return "\n".join(lines)
