"""Make a run from a Hugging Face folder. Logits are compared before the run appears.

  llm-jax import downloaded-model runs/imported
  llm-jax import gs://bucket/model runs/imported

It reads safetensors, never pickled files. The tokenizer is that of the folder (tokenizer.model or
tokenizer.json), or one given with --tokenizer. Its files, the licence and the settings of
generation come with it, and an export gives them back byte for byte. The run can be evaluated,
sampled, trained further, and exported:

  llm-jax train runs/imported --data.path data/mine --steps 500
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from llm_jax.commands import compared
from llm_jax.config import UserError
from llm_jax.config.extras import require_packages
from llm_jax.config.wording import counted
from llm_jax.runs.claim import only_writer

COMPILES = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder", metavar="FOLDER", help="Hugging Face folder, or its address (gs://, s3://, hf://)"
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="new folder for the run")
    parser.add_argument(
        "--tokenizer",
        type=Path,
        metavar="PATH",
        help="tokenizer.model, tokenizer.json or a folder with one (default: FOLDER)",
    )
    parser.add_argument(
        "--licence",
        metavar="NAME",
        help="licence of the model, for the lineage (default: what its README.md says)",
    )
    parser.add_argument(
        "--no-check", action="store_true", help="do not compare logits with transformers"
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    from llm_jax.data.sources.remote import is_address

    if not is_address(args.folder) and not Path(args.folder).is_dir():
        raise UserError(f"There is no folder {args.folder!r}: check the path.")
    if not args.no_check:
        require_packages("Comparing logits", "transformers", "torch", way_out="or give --no-check")
    with only_writer(args.run, "llm-jax import"):
        if not is_address(args.folder):
            return _imported(args, Path(args.folder))
        from llm_jax.convert.bucket import opened
        from llm_jax.data.sources.remote import shown

        with opened(args.folder, args.run) as (folder, elsewhere):
            return _imported(args, folder, elsewhere=elsewhere, address=shown(args.folder))


def _imported(args: argparse.Namespace, folder: Path, **remote: Any) -> dict[str, Any]:
    from llm_jax.config import layers_of
    from llm_jax.convert.hf_config import unknown_keys
    from llm_jax.convert.hf_import import import_run
    from llm_jax.convert.hf_model import read_config_json
    from llm_jax.convert.hf_tokenizer import why_not_exportable
    from llm_jax.convert.own_tokenizer import tokenizer_of

    tokenizer = tokenizer_of(folder, args.tokenizer)
    made = import_run(
        folder, args.run, tokenizer, check=not args.no_check, licence=args.licence, **remote
    )
    return {
        "format": "hf",
        "path": str(args.run),
        "files": made.files,
        "layers": layers_of(made.config.model).num_layers,
        "d_model": made.config.model.d_model,
        "max_logit_difference": made.max_logit_difference,
        "not_compared": made.not_compared,
        "not_exportable": why_not_exportable(tokenizer),
        "unknown_keys": unknown_keys(read_config_json(folder)),
    }


def text(result: dict[str, Any]) -> str:
    shape = f"{counted(result['layers'], 'layer')} of width {result['d_model']}"
    lines = [f"run in {result['path']}: {shape}; {compared(result)}"]
    if result["unknown_keys"]:
        lines.append(
            f"warning: config.json has {', '.join(result['unknown_keys'])}, which this importer "
            "does not know; the logits agree all the same, on a sample of text"
        )
    if result["not_exportable"]:
        lines.append(f"it cannot be exported again: the tokenizer {result['not_exportable']}")
    return "\n".join(lines)
