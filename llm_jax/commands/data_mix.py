"""Propose the weights of a mixture of datasets, and show how often each would be read.

  llm-jax data mix web=data/web ja=data/ja books=data/books --tokens 1B --method unimax
  llm-jax data mix web=data/web ja=data/ja --tokens 1B --method temperature --write mixture.json

Weights by the sizes of the sources: proportional; temperature, p ~ size^(1/T); unimax, as uniform
as --max-epochs allows. --weights takes your own, and shows their epochs. What --write wrote is read
by `llm-jax train CONFIG --mixture mixture.json`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from llm_jax.commands import count, number
from llm_jax.config import UserError

METHODS = ("proportional", "temperature", "unimax")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "sources", nargs="+", metavar="NAME=DIR", help="datasets with the same tokenizer"
    )
    parser.add_argument(
        "--tokens", type=count, required=True, metavar="N", help="tokens that the run will read"
    )
    parser.add_argument(
        "--method",
        choices=METHODS,
        default="unimax",
        help="how weights follow from sizes (default: %(default)s)",
    )
    parser.add_argument(
        "--temperature",
        type=number,
        default=10 / 3,
        metavar="T",
        help="1: proportional, larger: more uniform (default: 3.33)",
    )
    parser.add_argument(
        "--max-epochs",
        type=number,
        default=4.0,
        metavar="E",
        help="cap of unimax, and above which a source is marked (default: %(default)s)",
    )
    parser.add_argument(
        "--weights",
        nargs="+",
        type=number,
        metavar="W",
        help="your own weights in the order of the sources, in place of --method",
    )
    parser.add_argument(
        "--write", type=Path, metavar="FILE", help="write the mixture for `train --mixture`"
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    from llm_jax.config import Amount, MixtureConfig, MixtureSource, MixtureStage, to_json
    from llm_jax.runs.files import write_text

    folders = _folders(args.sources)
    infos = _infos(folders)
    sizes = {name: info["splits"]["train"]["tokens"] for name, info in infos.items()}
    method, weights = _weights(args, sizes)
    epochs = {name: weights[name] * args.tokens / sizes[name] for name in sizes}
    found = {
        "method": method,
        "tokens": args.tokens,
        "weights": weights,
        "epochs": epochs,
        "unique_tokens": sizes,
        "above_cap": [name for name in sizes if epochs[name] > args.max_epochs * (1 + 1e-9)],
        "max_epochs": args.max_epochs,
    }
    if args.write:
        read = tuple(Amount(source=name, weight=w) for name, w in weights.items())
        sources = tuple(MixtureSource(name=name, path=path) for name, path in folders.items())
        mixture = MixtureConfig(sources=sources, stages=(MixtureStage(read=read),))
        write_text(args.write, to_json(mixture))
        found["written"] = str(args.write)
    return found


def _folders(words: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for word in words:
        name, equals, folder = word.partition("=")
        if not (name and equals and folder):
            raise UserError(f"{word!r} is not a source: write NAME=DIR, such as ja=data/ja.")
        if name in found:
            raise UserError(f"The source {name!r} is there twice: give each its own name.")
        found[name] = folder
    return found


def _infos(folders: dict[str, str]) -> dict[str, dict[str, Any]]:
    from llm_jax.config import read_dataset_info

    infos = {name: read_dataset_info(folder) for name, folder in folders.items()}
    first, *others = infos
    for name in others:
        if infos[name]["tokenizer_sha256"] != infos[first]["tokenizer_sha256"]:
            raise UserError(
                f"The source {name!r} has another tokenizer than {first!r}: build it again with "
                f"--tokenizer {folders[first]}."
            )
    return infos


def _weights(args: argparse.Namespace, sizes: dict[str, int]) -> tuple[str, dict[str, float]]:
    """The method's name, and a weight for each source; they add up to 1."""
    from llm_jax.data.mixing import temperature, unimax

    for flag, value in (("--temperature", args.temperature), ("--max-epochs", args.max_epochs)):
        if not value > 0:
            raise UserError(f"{flag} is {value:g}: it must be above 0.")
    if args.weights is not None:
        if len(args.weights) != len(sizes):
            raise UserError(
                f"--weights has {len(args.weights)} numbers for {len(sizes)} sources: give one for "
                "each."
            )
        if min(args.weights) < 0 or not any(args.weights):
            raise UserError("--weights must be 0 or more, and one of them above 0.")
        total = sum(args.weights)
        return "given", {n: w / total for n, w in zip(sizes, args.weights, strict=True)}
    if args.method == "unimax":
        return args.method, unimax(sizes, args.tokens, args.max_epochs)
    return args.method, temperature(
        sizes, 1.0 if args.method == "proportional" else args.temperature
    )


def text(result: dict[str, Any]) -> str:
    width = max(len(name) for name in [*result["weights"], "source"])
    lines = [
        f"{result['tokens']:,} tokens, {result['method']} weights",
        f"  {'source':<{width}}  {'weight':>8}  {'unique tokens':>16}  {'epochs':>8}",
    ]
    for name, weight in result["weights"].items():
        mark = f"  above {result['max_epochs']:g}" if name in result["above_cap"] else ""
        lines.append(
            f"  {name:<{width}}  {weight:>8.4f}  {result['unique_tokens'][name]:>16,}  "
            f"{result['epochs'][name]:>8.3g}{mark}"
        )
    if result["above_cap"]:
        lines.append(
            "Repetitions beyond about four epochs are worth much less than new text (Muennighoff "
            "et al. 2023)."
        )
    if "written" in result:
        lines.append(
            f"Wrote {result['written']}: llm-jax train CONFIG --mixture {result['written']}"
        )
    return "\n".join(lines)
