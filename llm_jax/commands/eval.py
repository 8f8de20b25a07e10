"""Measure the loss, perplexity and bits per byte of a run on text it was not trained on.

  llm-jax eval runs/quickstart
  llm-jax eval runs/quickstart --text novel.txt --encoding cp932
  llm-jax eval runs/quickstart --ngram 5
  llm-jax eval runs/quickstart --task copying.py:copying
  llm-jax eval runs/quickstart --tasks copying_en counters_ja --limit 50

Without --text, it reads the whole validation split of the run's dataset, or of each source of its
mixture; all together count in the shares of the run. Text is not cleaned.
--ngram adds the figures of Kneser-Ney models on the same text: one trained on the whole train
split (of a mixture: on those of all sources), and one on as many tokens of it, or of each, as the
run has read, if they are fewer.
An encoder with a head is measured on the validation split of its labelled examples, or on those in
the files of --text (JSONL, CSV).
--tasks scores tasks of lm-eval or of ours (docs/evaluation.md). Held-out text is then measured only
if --text or --ngram asks for it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_jax.commands import (
    add_checkpoint_arguments,
    add_tensor_argument,
    eval_course,
    eval_tasks,
    ngram_order,
    task_table,
)
from llm_jax.commands.eval_labelled import evaluated, labelled_text
from llm_jax.commands.progress_line import ProgressReporter
from llm_jax.commands.text_report import loss_lines, losses
from llm_jax.config import RunConfig
from llm_jax.runs.history import read_history
from llm_jax.runs.kept import keep_evaluation

if TYPE_CHECKING:
    from llm_jax.data.dataset import TokenDataset
    from llm_jax.train.load import Run

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
    eval_tasks.add_arguments(parser)
    eval_course.add_arguments(parser)
    add_tensor_argument(parser)
    parser.add_argument("--keep", action="store_true", help="keep the result in RUN for `report`")


def run(args: argparse.Namespace) -> dict[str, Any]:
    from llm_jax.config.architecture import has_head
    from llm_jax.convert.kept_files import stop_ids
    from llm_jax.evals.own_tasks import run_task
    from llm_jax.infer.device_split import Split, described, sizes
    from llm_jax.language_model import LanguageModel
    from llm_jax.train.load import load_run

    eval_tasks.check(args)
    if eval_course.asked_for(args):
        return eval_course.run(args)
    asked = eval_tasks.loaded(args)  # before any weights are read
    split = Split(args.tensor)
    trained = load_run(
        args.run,
        args.step,
        verify=not args.no_verify,
        trust_code=args.trust_code,
        where=split.places,
    )
    if has_head(trained.config.model):
        return evaluated(args, trained)
    tokenizer = trained.tokenizer
    result: dict[str, Any] = {"step": trained.step, "verified": trained.verified}
    if (mesh := split.mesh(trained.config)) is not None:
        result["split"] = sizes(mesh)
        print(described(mesh), file=sys.stderr)
    with ProgressReporter() as progress:
        if args.text or args.ngram or not args.tasks:
            result |= _held_out(args, trained, progress)
        result["tasks"] = {}
        ends = stop_ids(Path(args.run), tokenizer)
        model = LanguageModel(trained.config, trained.params, tokenizer, trained.step, ends, mesh)
        for name in args.task:
            progress(name, 0, None)
            result["tasks"][name] = run_task(name, model)
        if asked is not None:
            progress("scoring tasks", 0, None)
            result |= eval_tasks.measure(args, asked, model)
    if args.keep and "texts" in result:
        result["kept"] = str(keep_evaluation(Path(args.run), result))
    return result


def _held_out(args: argparse.Namespace, trained: Run, progress: ProgressReporter) -> dict[str, Any]:
    """The scores of the run's validation splits or of --text, and those of n-gram models."""
    from llm_jax.data.mixture import run_shares
    from llm_jax.evals import held_out
    from llm_jax.evals.perplexity import Evaluator
    from llm_jax.evals.score import together

    tokenizer = trained.tokenizer
    texts, left_out, used = held_out.read_texts(args.text, args.encoding, tokenizer)
    needs_dataset = args.ngram or not texts
    datasets = held_out.open_datasets(trained.config, tokenizer) if needs_dataset else {}
    evaluator = Evaluator(trained.config, trained.params, tokenizer)
    scores = {
        name: evaluator.stream(tokens, tokenizer.marks, progress) for name, tokens in texts.items()
    }
    for name, dataset in {} if texts else datasets.items():
        split = f"validation split of {name}" if name else "validation split"
        scores[split] = evaluator.split(dataset, "validation", progress)
    shares = None
    if len(datasets) > 1 and not texts:
        sizes = [dataset.num_tokens("train") for dataset in datasets.values()]
        shares = run_shares(trained.config.data, trained.config.steps, sizes)
    result = {
        **together([*scores.values()], shares).report(),
        "texts": {name: score.report() for name, score in scores.items()},
        "dropped": left_out.dropped(),
        "lost": left_out.summary(used),
    }
    if args.ngram:
        progress(f"counting {args.ngram}-grams", 0, None)
        streams = texts or {
            name: held_out.whole_windows(
                held_out.split_tokens(dataset, "validation"), evaluator.seq_len
            )
            for name, dataset in zip(scores, datasets.values(), strict=True)
        }
        result["ngram"] = held_out.ngram_figures(
            [*datasets.values()],
            streams,
            order=args.ngram,
            consumed=_read_of_each(Path(args.run), trained.config, trained.step, datasets),
            shares=shares,
        )
    return result


def _read_of_each(
    folder: Path, config: RunConfig, step: int, datasets: dict[str, TokenDataset]
) -> list[int]:
    """Tokens of each dataset that the run has read, in the order of `datasets`."""
    from llm_jax.config import read_dataset_info
    from llm_jax.runs.lineage import read_of
    from llm_jax.train.lineage import lineage_at

    if len(datasets) == 1:
        return [read_history(folder, config).tokens(step)]
    read = read_of(lineage_at(folder, step, config))
    prints = [read_dataset_info(path)["fingerprint"] for path in config.data.folders.values()]
    return [read.get(digest, 0) for digest in prints]


def text(result: dict[str, Any]) -> str:
    if "labelled" in result:
        return labelled_text(result)
    if "checkpoints" in result:
        return eval_course.text(result)
    texts = result.get("texts", {})
    lines = [f"step {result['step']}, all together: {_figures(result)}"] if len(texts) > 1 else []
    lines += [f"{name}: {_figures(one)}" for name, one in texts.items()]
    for name, one in result.get("ngram", {}).items():
        lines.append(
            f"{one['order']}-gram Kneser-Ney, {name} ({one['trained_tokens']:,} tokens): "
            f"{_figures(one)}"
        )
        lines += [f"  {text}: {_figures(own)}" for text, own in one.get("texts", {}).items()]
    for name, figures in result["tasks"].items():
        lines.append(f"{name}: " + ", ".join(f"{key} {v:.4g}" for key, v in figures.items()))
    if "task_results" in result:
        lines += [*task_table.text_lines(result["task_results"]), *result["notes"]]
    if "sandbox" in result:
        lines.append(f"Programs of the model ran with: {result['sandbox']}.")
    if result.get("dropped"):
        lines.append(f"left out: {losses(result['dropped'])}")
    lines += loss_lines(result["lost"]) if "lost" in result else []
    if "kept" in result:
        lines.append(f"Kept in {result['kept']} for `llm-jax report`.")
    if "kept_tasks" in result:
        lines.append(f"Kept in {result['kept_tasks']} for `report` and `emergence`.")
    return "\n".join(lines)


def _figures(one: dict[str, Any]) -> str:
    perplexity = one["perplexity"]
    said = "too large to represent" if perplexity is None else f"{perplexity:.2f}"
    return (
        f"loss {one['loss']:.4f} nats per token, perplexity {said}, "
        f"{one['bits_per_byte']:.4f} bits per byte "
        f"({one['tokens']:,} tokens, {one['bytes']:,} bytes)"
    )
