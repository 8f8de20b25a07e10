"""Write a run's checkpoint for other programs. Logits are compared before the files appear.

  llm-jax export runs/quickstart --to hf exported
  llm-jax export runs/quickstart --to gguf model.gguf --dtype q8_0
  llm-jax export runs/domain --to hf exported --release public
  llm-jax export runs/vectors --to word2vec vectors

hf is a folder of Hugging Face files, gguf a file for llama.cpp, word2vec a folder with the rows of
the embedding table as vectors.txt, for gensim, and as vectors.safetensors. --release public refuses
a model that has read what its licence or class keeps from the public. The comparison loads the
files with transformers and torch (`pip install 'llm-jax[hf]'`). It is left out, and that is said,
where the model is too large for the memory; without it, an export holds about two tensors at a
time.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from llm_jax.commands import add_checkpoint_arguments, compared, count
from llm_jax.config import UserError
from llm_jax.config.extras import require_packages
from llm_jax.config.wording import counted
from llm_jax.runs.claim import only_writer

COMPILES = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", nargs="?", metavar="RUN", help="folder of the run")
    parser.add_argument(
        "--to",
        nargs="+",
        required=True,
        metavar=("FORMAT", "PATH"),
        help="hf or word2vec and a new folder, or gguf and a new file",
    )
    add_checkpoint_arguments(parser)
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16", "q8_0"),
        default="float32",
        help="dtype of the stored weights; the last two with gguf (default: %(default)s)",
    )
    parser.add_argument(
        "--as",
        dest="as_class",
        metavar="CLASS",
        help="class of transformers to go out as, such as llama (default: the first that fits)",
    )
    parser.add_argument(
        "--max-shard-size",
        type=count,
        metavar="BYTES",
        help="most bytes of a file of weights, with hf (default: 5G)",
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
    kind, folder, out = _places(args)
    if args.vouch and args.release is None:
        raise UserError("--vouch is for --release public: give both, or leave it out.")
    if kind != "gguf" and args.dtype not in ("float32", "bfloat16"):
        raise UserError(f"--dtype {args.dtype} is for --to gguf: give float32 or bfloat16.")
    if kind == "gguf" and args.max_shard_size is not None:
        raise UserError("--max-shard-size is for --to hf: a GGUF file is one. Leave it out.")
    if kind == "gguf":
        require_packages("Writing GGUF", "gguf")
    if kind == "word2vec":
        _refuse_for_vectors(args)
    elif not args.no_check:
        require_packages("Comparing logits", "transformers", "torch", way_out="or give --no-check")
    from llm_jax.convert.release import check_release
    from llm_jax.train.lineage import lineage_at
    from llm_jax.train.opened import open_run

    _refuse_taken(kind, out)
    with (
        only_writer(out, "llm-jax export"),
        open_run(
            folder,
            args.step,
            scratch=out,
            verify=not args.no_verify,
            trust_code=args.trust_code,
        ) as trained,
    ):
        if args.release:
            lineage = lineage_at(folder.absolute(), trained.step, trained.config)
            check_release(lineage, args.vouch)
        made = _written(kind, args, trained, folder, out)
    return {
        "format": kind,
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
        "not_compared": made.not_compared,
        "notes": [*trained.notes, *made.notes],
    }


def _written(kind: str, args: argparse.Namespace, trained: Any, run: Path, out: Path) -> Any:
    if kind == "word2vec":
        from llm_jax.convert.vectors import export_vectors

        return export_vectors(trained.config, trained.params, trained.tokenizer, out)
    parts = (trained.config, trained.step, trained.params, trained.tokenizer, out)
    chosen: dict[str, Any] = {
        "dtype": args.dtype,
        "check": not args.no_check,
        "as_class": args.as_class,
    }
    if kind == "gguf":
        from llm_jax.convert.gguf_export import export_gguf

        return export_gguf(*parts, run=run, **chosen)
    from llm_jax.convert.hf_export import export
    from llm_jax.convert.shards import SHARD_BYTES

    return export(*parts, run=run, shard_bytes=args.max_shard_size or SHARD_BYTES, **chosen)


def _refuse_for_vectors(args: argparse.Namespace) -> None:
    """Raises `UserError` for a flag that changes nothing of vectors."""
    flags = {
        f"--dtype {args.dtype}": args.dtype != "float32",
        "--as": args.as_class is not None,
        "--max-shard-size": args.max_shard_size is not None,
        "--no-check": args.no_check,
    }
    for flag in (flag for flag, given in flags.items() if given):
        raise UserError(
            f"{flag} is not for --to word2vec, which writes float32 vectors: leave it out."
        )


def _refuse_taken(kind: str, out: Path) -> None:
    from llm_jax.convert.hf_export import refuse_existing, refuse_nonempty

    if kind == "gguf":
        refuse_existing(out)
    else:
        refuse_nonempty(out)


def _places(args: argparse.Namespace) -> tuple[str, Path, Path]:
    """The format, the run's folder, which may be given before or after --to, and what to write."""
    kind, *words = args.to
    if kind not in ("hf", "gguf", "word2vec"):
        way = (
            "the formats are hf, gguf and word2vec"
            if words
            else f"give the format too: --to hf {kind}"
        )
        raise UserError(f"--to is {kind!r}: {way}.")
    words += [args.run] if args.run else []
    if len(words) != 2:
        given = " ".join(words) or "nothing"
        new = "a new file" if kind == "gguf" else "a new folder"
        raise UserError(
            f"export needs a run and {new}, but got {given}: llm-jax export RUN --to {kind} PATH."
        )
    out, folder = map(Path, words)
    return kind, folder, out


def text(result: dict[str, Any]) -> str:
    first = (
        f"{result['architecture']} of step {result['step']} in {result['path']}: "
        f"{counted(len(result['files']), 'file')}, {counted(result['bytes'], 'byte')}, "
        f"{result['dtype']}; {compared(result)}"
    )
    return "\n".join([first, *(f"note: {note}" for note in result["notes"])])
