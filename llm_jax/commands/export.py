"""Write a run's checkpoint as Hugging Face files. Logits are compared before the folder appears.

  llm-jax export runs/quickstart --to hf exported
  llm-jax export runs/domain --to hf exported --release public

--release public refuses a model that has read what its licence or class keeps from the public.
The comparison loads the files with transformers and torch (`pip install 'llm-jax[hf]'`).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from llm_jax.commands import add_checkpoint_arguments
from llm_jax.config import UserError
from llm_jax.config.extras import require_packages
from llm_jax.config.wording import counted
from llm_jax.runs.claim import only_writer

COMPILES = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", nargs="?", metavar="RUN", help="folder of the run")
    parser.add_argument(
        "--to", nargs="+", required=True, metavar=("FORMAT", "DIR"), help="hf and a new folder"
    )
    add_checkpoint_arguments(parser)
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        default="float32",
        help="dtype of the stored weights (default: %(default)s)",
    )
    parser.add_argument(
        "--release",
        choices=("public",),
        help="who will have the model: public refuses what a licence or a class forbids",
    )
    parser.add_argument(
        "--vouch",
        nargs="+",
        default=[],
        metavar="NAME",
        help="sources of unknown licence or undeclared class that you answer for",
    )
    parser.add_argument(
        "--no-check", action="store_true", help="do not compare logits with transformers"
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    folder, out = _places(args)
    if args.vouch and args.release is None:
        raise UserError("--vouch is for --release public: give both, or leave it out.")
    if not args.no_check:
        require_packages("Comparing logits", "transformers", "torch", way_out="or give --no-check")
    from llm_jax.convert.hf_export import export, refuse_nonempty
    from llm_jax.convert.release import check_release
    from llm_jax.train.lineage import lineage_at
    from llm_jax.train.load import load_run

    refuse_nonempty(out)
    with only_writer(out, "llm-jax export"):
        trained = load_run(folder, args.step, verify=not args.no_verify, trust_code=args.trust_code)
        if args.release:
            lineage = lineage_at(folder.absolute(), trained.step, trained.config)
            check_release(lineage, args.vouch)
        made = export(
            trained.config,
            trained.step,
            trained.params,
            trained.tokenizer,
            out,
            run=folder,
            dtype=args.dtype,
            check=not args.no_check,
        )
    return {
        "format": "hf",
        "path": str(out),
        "files": made.files,
        "bytes": made.num_bytes,
        "architecture": made.architecture,
        "step": trained.step,
        "verified": trained.verified,
        "dtype": args.dtype,
        "release": args.release,
        "vouched": args.vouch,
        "max_logit_difference": made.max_logit_difference,
    }


def _places(args: argparse.Namespace) -> tuple[Path, Path]:
    """The run's folder, which may be given before or after --to, and the folder to write."""
    kind, *words = args.to
    if kind != "hf":
        way = "the only format is hf" if words else f"give the format too: --to hf {kind}"
        raise UserError(f"--to is {kind!r}: {way}.")
    words += [args.run] if args.run else []
    if len(words) != 2:
        given = " ".join(words) or "nothing"
        raise UserError(
            f"export needs a run and a new folder, but got {given}: llm-jax export RUN --to hf DIR."
        )
    out, folder = map(Path, words)
    return folder, out


def text(result: dict[str, Any]) -> str:
    difference = result["max_logit_difference"]
    checked = (
        "logits were not compared (--no-check)"
        if difference is None
        else f"largest logit difference from transformers {difference:.2g}"
    )
    return (
        f"{result['architecture']} of step {result['step']} in {result['path']}: "
        f"{counted(len(result['files']), 'file')}, {counted(result['bytes'], 'byte')}, "
        f"{result['dtype']}; {checked}"
    )
