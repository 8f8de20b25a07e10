"""Show what a dataset holds: counts, provenance, and documents decoded from its tokens.

llm-jax data inspect data/stdlib --samples 5
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_jax.commands import count
from llm_jax.commands.data_label import example_lines
from llm_jax.commands.text_report import (
    held_out_line,
    loss_lines,
    losses,
    source_lines,
    split_lines,
)

if TYPE_CHECKING:
    from llm_jax.data.dataset import TokenDataset


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", metavar="DIR", help="dataset folder")
    parser.add_argument(
        "--samples",
        type=count,
        default=3,
        metavar="N",
        help="documents to show (default: %(default)s)",
    )
    parser.add_argument(
        "--sample-tokens",
        type=count,
        default=120,
        metavar="N",
        help="tokens to show of each document (default: %(default)s)",
    )
    parser.add_argument("--split", default="train", help="split to show (default: %(default)s)")


def run(args: argparse.Namespace) -> dict[str, Any]:
    from llm_jax.data.dataset import TokenDataset

    dataset = TokenDataset.open(args.path)
    return {
        "path": args.path,
        "bytes_per_token": dataset.bytes_per_token,
        **dataset.info,
        "samples": samples(dataset, args.split, args.samples, args.sample_tokens),
    }


def samples(dataset: TokenDataset, split: str, number: int, tokens: int) -> list[dict[str, Any]]:
    """The beginnings of at most `number` documents, at evenly spaced places of the split."""
    import numpy as np

    tokenizer = dataset.tokenizer
    end = dataset.num_tokens(split)
    found: dict[int, dict[str, Any]] = {}
    number = min(number, dataset.info["splits"][split]["documents"])
    for place in np.linspace(0, end, number, endpoint=False).astype(int):
        start = dataset.find(split, tokenizer.bos_id, int(place))
        if start is None or start in found or start + 1 == end:
            continue
        ids = dataset.read(split, np.array([start]), min(tokens, end - start))[0]
        stop = np.flatnonzero(ids[1:] == tokenizer.eos_id)
        ids = ids[: 1 + stop[0]] if len(stop) else ids
        found[start] = {"split": split, "token": start, "text": tokenizer.decode(ids)}
    return list(found.values())


def _left_out_file(result: dict[str, Any]) -> Path:
    return Path(result["path"], "left_out.jsonl")


def text(result: dict[str, Any]) -> str:
    documents = result["documents"]
    if "examples" in result:
        lines = [result["path"], *example_lines(result), *source_lines(result["sources"])]
        return "\n".join([*lines, *_sample_lines(result)])
    lines = [
        result["path"],
        f"  documents  {documents['in']:,} in, {documents['out']:,} out "
        f"(dropped: {losses(result['dropped'])})",
        f"  licences   {', '.join(f'{name} {n:,}' for name, n in result['licences'].items())}",
        f"  tokens     {result['tokens']:,} of vocabulary {result['vocab_size']:,}, "
        f"{result['bytes_per_token']:.2f} bytes per token",
    ]
    lines += split_lines(result["splits"])
    if "held_out" in result:  # not in datasets of older formats
        lines.append(f"  held out   {held_out_line(result)}")
        lines += [f"  {line}" for line in loss_lines(result["lost"], _left_out_file(result))]
    lines += source_lines(result["sources"])
    return "\n".join([*lines, *_sample_lines(result)])


def _sample_lines(result: dict[str, Any]) -> list[str]:
    lines = []
    for sample in result["samples"]:
        lines += [f"--- {sample['split']}, token {sample['token']:,}", sample["text"]]
    return lines
