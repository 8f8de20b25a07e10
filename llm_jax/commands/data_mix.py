"""Propose the weights of a mixture of datasets, and show how often each would be read.

  llm-jax data mix web=data/web ja=data/ja books=data/books --tokens 1B --method unimax
  llm-jax data mix web=data/web ja=data/ja --tokens 1B --method temperature --write mixture.json
  llm-jax data mix web=data/web ja=data/ja --tokens 1B --method regmix --minutes 20

Weights by the sizes of the sources: proportional; temperature, p ~ size^(1/T); unimax, as uniform
as --max-epochs allows. regmix trains short runs on random mixtures, fits their losses, and proposes
the mixture with the lowest predicted loss; run it again to resume. --weights takes your own, and
shows their epochs. What --write wrote is read by `llm-jax train CONFIG --mixture mixture.json`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from llm_jax.commands import count, count_up_to, number
from llm_jax.config import UserError

METHODS = ("proportional", "temperature", "unimax", "regmix")
MOST_PROXIES = 1000


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
        help="where weights come from (default: %(default)s)",
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
        help="cap of unimax and regmix, and above which a source is marked (default: %(default)s)",
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
    parser.add_argument("--overwrite", action="store_true", help="replace an existing FILE")
    group = parser.add_argument_group("regmix")
    group.add_argument("--flops", type=number, help="training FLOPs of all proxies together")
    group.add_argument("--minutes", type=number, help="training time of all proxies together")
    group.add_argument(
        "--proxies",
        type=count_up_to(MOST_PROXIES),
        metavar="N",
        help="short runs on random mixtures (default: 8 for each source, at least 16)",
    )
    group.add_argument(
        "--target", metavar="NAME", help="source whose loss counts (default: the mean of all)"
    )
    group.add_argument(
        "--chip", help="the one chip that trains them; `local` is this machine (default: local)"
    )
    group.add_argument("--seq-len", type=count, help="tokens per sequence (default: 512)")
    group.add_argument(
        "--out", type=Path, metavar="DIR", help="folder for the proxies (default: regmix)"
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    from llm_jax.commands.mix_proxies import mixture_of
    from llm_jax.config import to_json
    from llm_jax.runs.files import write_text

    _check_flags(args)
    folders = _folders(args.sources)
    infos = _infos(folders)
    sizes = {name: info["splits"]["train"]["tokens"] for name, info in infos.items()}
    method, weights, regmix = _weights(args, folders, infos, sizes)
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
    if regmix:
        found["regmix"] = regmix
    if args.write:
        write_text(args.write, to_json(mixture_of(folders, weights)))
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


def _check_flags(args: argparse.Namespace) -> None:
    """Raises `UserError` for what can be seen before anything is read."""
    from llm_jax.commands.mix_proxies import FLAGS

    if args.write and args.write.exists() and not args.overwrite:
        raise UserError(f"--write {str(args.write)!r} exists: choose another file, or --overwrite.")
    given = [name for name in FLAGS if getattr(args, name) is not None]
    if given and (args.method != "regmix" or args.weights is not None):
        flag = "--" + given[0].replace("_", "-")
        raise UserError(f"{flag} is for --method regmix: leave it out, or give that method.")
    for flag, value in (("--temperature", args.temperature), ("--max-epochs", args.max_epochs)):
        if not value > 0:
            raise UserError(f"{flag} is {value:g}: it must be above 0.")


def _weights(
    args: argparse.Namespace,
    folders: dict[str, str],
    infos: dict[str, dict[str, Any]],
    sizes: dict[str, int],
) -> tuple[str, dict[str, float], dict[str, Any] | None]:
    """The method's name, a weight for each source, which add up to 1, and what RegMix found."""
    from llm_jax.commands.mix_proxies import weights_by_proxies
    from llm_jax.data.mixing import temperature, unimax

    if args.weights is not None:
        if len(args.weights) != len(sizes):
            raise UserError(
                f"--weights has {len(args.weights)} numbers for {len(sizes)} sources: give one for "
                "each."
            )
        if min(args.weights) < 0 or not any(args.weights):
            raise UserError("--weights must be 0 or more, and one of them above 0.")
        total = sum(args.weights)
        return "given", {n: w / total for n, w in zip(sizes, args.weights, strict=True)}, None
    if args.method == "regmix":
        return args.method, *weights_by_proxies(args, folders, infos)
    if args.method == "unimax":
        return args.method, unimax(sizes, args.tokens, args.max_epochs), None
    T = 1.0 if args.method == "proportional" else args.temperature
    return args.method, temperature(sizes, T), None


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
    if "regmix" in result:
        from llm_jax.commands.mix_proxies import lines as of_proxies

        lines += of_proxies(result["regmix"])
    if "written" in result:
        lines.append(
            f"Wrote {result['written']}: llm-jax train CONFIG --mixture {result['written']}"
        )
    return "\n".join(lines)
