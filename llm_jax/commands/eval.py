"""Loss, perplexity and bits per byte of a run on text that it was not trained on.

  llm-jax eval runs/quickstart
  llm-jax eval runs/quickstart --text novel.txt --encoding cp932
  llm-jax eval runs/quickstart --ngram 5

Without --text the validation split of the run's dataset is read, every window of it. --ngram also
gives the figures of a Kneser-Ney model on the same text: trained on the whole train split, and on
as many of its tokens as the run has consumed. Text is taken as it is, without cleaning.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from llm_jax.commands import count
from llm_jax.commands.progress import ProgressReporter
from llm_jax.config import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="folder of the run")
    parser.add_argument("--step", type=int, metavar="N", help="checkpoint (default: the newest)")
    parser.add_argument(
        "--text",
        nargs="+",
        type=Path,
        default=[],
        metavar="PATH",
        help="files, or folders of text and JSONL files (default: the dataset's validation split)",
    )
    parser.add_argument(
        "--encoding", default="utf-8", help="of the text files (default: %(default)s)"
    )
    parser.add_argument(
        "--ngram", type=count, metavar="ORDER", help="compare with an n-gram model of this order"
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    from llm_jax.data.tokenizer import Tokenizer
    from llm_jax.evals.perplexity import Evaluator
    from llm_jax.train.checkpoint import load_run

    trained = load_run(args.run, args.step)
    tokenizer = Tokenizer.load(trained.tokenizer_path)
    with ProgressReporter() as progress:
        if args.text:
            texts, dropped = _read_texts(args, tokenizer)
        evaluator = Evaluator(trained.config, trained.params, tokenizer)
        result: dict[str, Any] = {"step": trained.step, "tasks": {}}
        if not args.text:
            dataset = _dataset(trained, tokenizer)
            score = evaluator.split(dataset, "validation", progress)
            result |= {**score.report(), "text": "validation split"}
            held_out = {"validation": None}
        else:
            scores = {
                name: evaluator.stream(tokens, tokenizer.bos_id, progress)
                for name, tokens in texts.items()
            }
            score = sum(list(scores.values())[1:], start=next(iter(scores.values())))
            result |= {**score.report(), "text": ", ".join(texts), "dropped": dropped}
            result["texts"] = {name: score.report() for name, score in scores.items()}
            held_out = texts
        if args.ngram:
            result["ngram"] = _ngram(args.ngram, trained, tokenizer, held_out, evaluator, progress)
    return result


def text(result: dict[str, Any]) -> str:
    lines = [
        f"{result['text']} at step {result['step']}: loss {result['loss']:.4f} nats per token, "
        f"perplexity {result['perplexity']:.2f}, {result['bits_per_byte']:.4f} bits per byte "
        f"({result['tokens']:,} tokens, {result['bytes']:,} bytes)"
    ]
    if "texts" in result and len(result["texts"]) > 1:
        lines += [
            f"  {name}: {one['bits_per_byte']:.4f} bits per byte"
            for name, one in result["texts"].items()
        ]
    if result.get("dropped"):
        lines.append(
            "documents left out: " + ", ".join(f"{k} {n}" for k, n in result["dropped"].items())
        )
    for name, one in result.get("ngram", {}).items():
        lines.append(
            f"{one['order']}-gram Kneser-Ney, {name} ({one['trained_tokens']:,} tokens): "
            f"{one['bits_per_byte']:.4f} bits per byte"
        )
    return "\n".join(lines)


def _read_texts(args: argparse.Namespace, tokenizer: Any) -> tuple[dict[str, Any], dict[str, int]]:
    """Token stream of each path, and how many documents were dropped for which reason."""
    from collections import Counter

    import numpy as np

    from llm_jax.data.text import FileSource

    dropped: Counter[str] = Counter()
    streams = {}
    for path in args.text:
        try:
            source = FileSource(path, args.encoding)
        except UserError as error:
            raise UserError(str(error).replace("--input", "--text", 1)) from None
        documents = [document.text for document in source.documents(dropped)]
        if not any(documents):
            why = ", ".join(f"{reason} {n}" for reason, n in dropped.items()) or "it is empty"
            raise UserError(f"--text {str(path)!r} has no text ({why}): check it and --encoding.")
        streams[str(path)] = np.concatenate(tokenizer.encode_documents(documents))
    return streams, {reason: n for reason, n in dropped.items() if n}


def _dataset(trained: Any, tokenizer: Any) -> Any:
    from llm_jax.data.pipeline import TokenDataset

    dataset = TokenDataset.open(trained.config.data.path)
    if dataset.tokenizer.sha256 != tokenizer.sha256:
        raise UserError(
            f"The dataset in {trained.config.data.path} has another tokenizer than the run: build "
            "it again with the run's tokenizer.model, or evaluate --text."
        )
    return dataset


def _ngram(
    order: int,
    trained: Any,
    tokenizer: Any,
    held_out: dict[str, Any],
    evaluator: Any,
    progress: Any,
) -> dict[str, Any]:
    """Figures of the n-gram model on what the run was evaluated on, by what it was trained on."""
    from llm_jax.evals import ngram
    from llm_jax.evals.perplexity import split_tokens
    from llm_jax.evals.score import Score

    dataset = _dataset(trained, tokenizer)
    streams = list(held_out.values())
    if "validation" in held_out:
        tokens = split_tokens(dataset, "validation")
        # The same targets as the run's: whole windows only.
        streams = [tokens[: (len(tokens) - 1) // evaluator.seq_len * evaluator.seq_len + 1]]
    consumed = trained.step * trained.config.batch_tokens
    sizes = {"whole train split": dataset.num_tokens("train")}
    if 1 < consumed < sizes["whole train split"]:
        sizes["as many tokens as the run"] = consumed
    figures = {}
    for name, size in sizes.items():
        progress(f"counting {order}-grams", size, None)
        tokens = split_tokens(dataset, "train", size)
        model = ngram.train(
            tokens, order=order, vocab_size=tokenizer.vocab_size, bos_id=tokenizer.bos_id
        )
        score = Score(0.0, 0, 0)
        for stream in streams:
            score += model.score(stream, tokenizer)
        figures[name] = {"order": order, "trained_tokens": size, **score.report()}
    return figures
