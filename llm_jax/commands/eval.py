"""Measure the loss, perplexity and bits per byte of a run on text it was not trained on.

  llm-jax eval runs/quickstart
  llm-jax eval runs/quickstart --text novel.txt --encoding cp932
  llm-jax eval runs/quickstart --ngram 5
  llm-jax eval runs/quickstart --task copying.py:copying

Without --text, it reads the whole validation split of the run's dataset, or of each source of its
mixture; all together count in the shares of the run. Text is not cleaned.
--ngram adds the figures of Kneser-Ney models on the same text: one trained on the whole train
split, and one on as many of its tokens as the run has read, if they are fewer.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from llm_jax.commands import add_checkpoint_arguments, ngram_order
from llm_jax.commands.progress_line import ProgressReporter
from llm_jax.commands.text_report import loss_lines, losses
from llm_jax.config import UserError
from llm_jax.runs.history import read_history
from llm_jax.runs.kept import keep_evaluation

COMPILES = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="folder of the run")
    add_checkpoint_arguments(parser)
    parser.add_argument(
        "--text",
        nargs="+",
        type=Path,
        default=[],
        metavar="PATH",
        help="files, or folders of text and JSON files (default: the dataset's validation split)",
    )
    parser.add_argument(
        "--encoding", default="utf-8", help="encoding of the text files (default: %(default)s)"
    )
    parser.add_argument(
        "--ngram",
        type=ngram_order,
        metavar="ORDER",
        help="compare with n-gram models of this order, 1 to 20",
    )

    parser.add_argument(
        "--task",
        nargs="+",
        default=[],
        metavar="FILE.py:NAME",
        help="evaluations of your own, or entry points of llm_jax.evaluations",
    )
    parser.add_argument("--keep", action="store_true", help="keep the result in RUN for `report`")


def run(args: argparse.Namespace) -> dict[str, Any]:
    from llm_jax.convert.kept_files import stop_ids
    from llm_jax.data.mixture import run_shares
    from llm_jax.evals import held_out
    from llm_jax.evals.own_tasks import run_task
    from llm_jax.evals.perplexity import Evaluator
    from llm_jax.evals.score import mixed
    from llm_jax.language_model import LanguageModel
    from llm_jax.train.load import load_run

    trained = load_run(args.run, args.step, verify=not args.no_verify, trust_code=args.trust_code)
    tokenizer = trained.tokenizer
    texts, left_out, used = held_out.read_texts(args.text, args.encoding, tokenizer)
    needs_dataset = args.ngram or not texts
    datasets = held_out.open_datasets(trained.config, tokenizer) if needs_dataset else {}
    if args.ngram and len(datasets) > 1:
        raise UserError(
            f"--ngram compares with models of one dataset, and the run reads a mixture of "
            f"{len(datasets)}: leave it out."
        )
    with ProgressReporter() as progress:
        evaluator = Evaluator(trained.config, trained.params, tokenizer)
        scores = {
            name: evaluator.stream(tokens, tokenizer.marks, progress)
            for name, tokens in texts.items()
        }
        for name, dataset in {} if texts else datasets.items():
            split = f"validation split of {name}" if name else "validation split"
            scores[split] = evaluator.split(dataset, "validation", progress)
        first, *others = scores.values()
        whole = sum(others, start=first)
        if len(datasets) > 1 and not texts:
            sizes = [dataset.num_tokens("train") for dataset in datasets.values()]
            shares = run_shares(trained.config.data, trained.config.steps, sizes)
            whole = mixed([*scores.values()], shares)
        result = {
            "step": trained.step,
            "verified": trained.verified,
            **whole.report(),
            "texts": {name: score.report() for name, score in scores.items()},
            "dropped": left_out.dropped(),
            "lost": left_out.summary(used),
            "tasks": {},
        }
        ends = stop_ids(Path(args.run), tokenizer)
        model = LanguageModel(trained.config, trained.params, tokenizer, trained.step, ends)
        for name in args.task:
            progress(name, 0, None)
            result["tasks"][name] = run_task(name, model)
        if args.ngram:
            (dataset,) = datasets.values()
            progress(f"counting {args.ngram}-grams", 0, None)
            streams = list(texts.values())
            if not streams:
                tokens = held_out.split_tokens(dataset, "validation")
                streams = [held_out.whole_windows(tokens, evaluator.seq_len)]
            consumed = read_history(Path(args.run), trained.config).tokens(trained.step)
            result["ngram"] = held_out.ngram_figures(
                dataset, streams, order=args.ngram, consumed=consumed
            )
    if args.keep:
        result["kept"] = str(keep_evaluation(Path(args.run), result))
    return result


def text(result: dict[str, Any]) -> str:
    lines = (
        [f"step {result['step']}, all together: {_figures(result)}"]
        if len(result["texts"]) > 1
        else []
    )
    lines += [f"{name}: {_figures(one)}" for name, one in result["texts"].items()]
    for name, one in result.get("ngram", {}).items():
        lines.append(
            f"{one['order']}-gram Kneser-Ney, {name} ({one['trained_tokens']:,} tokens): "
            f"{_figures(one)}"
        )
    for name, figures in result["tasks"].items():
        lines.append(f"{name}: " + ", ".join(f"{key} {v:.4g}" for key, v in figures.items()))
    if result["dropped"]:
        lines.append(f"left out: {losses(result['dropped'])}")
    lines += loss_lines(result["lost"])
    if "kept" in result:
        lines.append(f"Kept in {result['kept']} for `llm-jax report`.")
    return "\n".join(lines)


def _figures(one: dict[str, Any]) -> str:
    perplexity = one["perplexity"]
    said = "too large to represent" if perplexity is None else f"{perplexity:.2f}"
    return (
        f"loss {one['loss']:.4f} nats per token, perplexity {said}, "
        f"{one['bits_per_byte']:.4f} bits per byte "
        f"({one['tokens']:,} tokens, {one['bytes']:,} bytes)"
    )
