"""Add pieces of other text to a run's tokenizer, and rows for them to its model, as a new run.

  llm-jax tokenizer extend runs/english runs/bilingual --add 8000 --input novels/

The old pieces keep their ids. The row of a new piece begins as the mean of the rows of the pieces
that it replaces. Then build data with the new tokenizer, and go on:

  llm-jax data build --input novels/ --tokenizer runs/bilingual --out data/ja
  llm-jax train runs/bilingual --data.path data/ja --steps 2000
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from llm_jax.commands import add_checkpoint_arguments, pieces, seed
from llm_jax.commands.progress_line import ProgressReporter
from llm_jax.commands.sources import (
    add_sample_argument,
    add_source_arguments,
    cleaner_of,
    sources_of,
)
from llm_jax.commands.text_report import loss_lines, losses
from llm_jax.config.wording import counted
from llm_jax.runs.claim import only_writer
from llm_jax.runs.files import scratch

MEASURED_BYTES = 2_000_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of the run")
    parser.add_argument("out", type=Path, metavar="OUT", help="new folder for the extended run")
    parser.add_argument("--add", type=pieces, required=True, metavar="N", help="pieces to add")
    parser.add_argument(
        "--seed", type=seed, default=0, help="seed of the text sample (default: %(default)s)"
    )
    add_sample_argument(parser)
    add_checkpoint_arguments(parser)
    add_source_arguments(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    from llm_jax.convert.extend_model import write_extended
    from llm_jax.convert.hf_export import refuse_nonempty
    from llm_jax.data.building.reading import read_corpus
    from llm_jax.data.sources import LeftOut
    from llm_jax.data.tokenizers.extend import extend, require_extendable
    from llm_jax.data.vocabulary import take
    from llm_jax.train.load import load_run

    refuse_nonempty(args.out)
    trained = load_run(args.run, args.step, verify=not args.no_verify, trust_code=args.trust_code)
    require_extendable(trained.tokenizer)
    sources, cleaner = sources_of(args), cleaner_of(args)
    with (
        only_writer(args.out, "llm-jax tokenizer extend"),
        ProgressReporter() as progress,
        scratch(args.out) as folder,
    ):
        left_out = LeftOut(args.strict, args.max_left_out)
        corpus = read_corpus(sources, cleaner, folder / "corpus", progress, left_out)
        order = corpus.shuffled(args.seed)
        progress("training pieces", 0, None)
        extended = extend(trained.tokenizer, take(corpus, order, args.sample_bytes), args.add)
        sample = list(take(corpus, order, MEASURED_BYTES))
        corpus.close()
        config = write_extended(trained, args.run, args.out, extended)
    return {
        "path": str(args.out),
        "step": trained.step,
        "added": args.add,
        "vocab_size": extended.tokenizer.vocab_size,
        "model_vocab_size": config.model.vocab_size,
        "bytes_per_token": extended.tokenizer.bytes_per_token(sample),
        "bytes_per_token_before": trained.tokenizer.bytes_per_token(sample),
        "documents": {"in": len(corpus) + sum(left_out.dropped().values()), "out": len(corpus)},
        "dropped": left_out.dropped(),
        "lost": left_out.summary(corpus.used),
    }


def text(result: dict[str, Any]) -> str:
    return "\n".join(
        [
            f"{result['path']}: {result['added']:,} pieces more, {result['vocab_size']:,} in all; "
            f"{result['bytes_per_token']:.2f} bytes per token of this text, before "
            f"{result['bytes_per_token_before']:.2f}",
            f"  from {counted(result['documents']['out'], 'document')} (dropped: "
            f"{losses(result['dropped'])})",
            *loss_lines(result["lost"]),
        ]
    )
