"""Vectors of words or texts from a model, their cosines, neighbours and analogies.

A TEXT's vector is the mean of the embedding table's rows of its pieces or, with --hidden, the mean
of the model's last hidden states, which is what an encoder fine-tuned on pairs of sentences
(`data label`) gives by itself. Neighbours are pieces of the vocabulary.

examples:
  llm-jax embed runs/first def class return
  llm-jax embed runs/first man king woman --analogy
  llm-jax embed runs/first --lines texts.txt --hidden --out vectors.npy
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from llm_jax.commands import add_checkpoint_arguments, count
from llm_jax.config import UserError

MOST_SHOWN = 10
"""Texts whose cosines are printed."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run's folder, or a Hugging Face folder")
    parser.add_argument("texts", nargs="*", metavar="TEXT", help="words or texts")
    parser.add_argument("--lines", type=Path, metavar="FILE", help="more texts, one on each line")
    parser.add_argument(
        "--hidden", action="store_true", help="mean of the last hidden states, not of table rows"
    )
    parser.add_argument(
        "--neighbours", type=count, metavar="N", help="nearest pieces to show (default: 5)"
    )
    parser.add_argument(
        "--analogy", action="store_true", help="A is to B as C is to what: B - A + C"
    )
    parser.add_argument("--out", type=Path, metavar="FILE.npy", help="write the vectors here")
    add_checkpoint_arguments(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    from llm_jax.config import read_text

    texts = [*args.texts, *(read_text(args.lines).splitlines() if args.lines else [])]
    if not texts:
        raise UserError("llm-jax embed needs texts: give TEXT, or --lines FILE.")
    if empty := [number for number, text in enumerate(texts, 1) if not text]:
        raise UserError(f"Text {empty[0]} of {len(texts)} is empty: leave it out.")
    if args.analogy and len(texts) != 3:
        raise UserError(f"--analogy takes three texts, A B C, not {len(texts)}.")
    if args.hidden and (args.analogy or args.neighbours):
        flag = "--analogy" if args.analogy else "--neighbours"
        raise UserError(f"{flag} compares rows of the table: leave --hidden out.")
    if args.out is not None and args.out.suffix != ".npy":
        raise UserError(f"--out is {str(args.out)!r}: its name must end in .npy.")
    return _embedded(args, texts)


def _embedded(args: argparse.Namespace, texts: list[str]) -> dict[str, Any]:
    import numpy as np

    from llm_jax.infer import embeddings
    from llm_jax.language_model import load_model
    from llm_jax.runs.files import replacing

    model = load_model(args.run, args.step, verify=not args.no_verify, trust_code=args.trust_code)
    made_for_it = getattr(model.config, "head", None) == "embed"
    hidden = args.hidden or (made_for_it and not args.analogy and not args.neighbours)
    result: dict[str, Any] = {"texts": texts, "of": "hidden" if hidden else "table"}
    if hidden:
        vectors = embeddings.of_texts(model, texts)
    else:
        vectors, ids = embeddings.of_words(model, texts)
        result["pieces"] = [model.tokenizer.pieces(row) for row in ids]
        shown = args.neighbours or 5
        if args.analogy:
            asked = vectors[1] - vectors[0] + vectors[2]
            given = [i for row in ids for i in row]
            (result["analogy"],) = embeddings.nearest(model, asked[None], shown, [given])
        elif len(texts) <= MOST_SHOWN or args.neighbours:
            result["neighbours"] = embeddings.nearest(model, vectors, shown, ids)
    if len(texts) <= MOST_SHOWN:
        result["cosines"] = embeddings.cosines(vectors, vectors).round(6).tolist()
    if args.out is not None:
        with replacing(args.out) as temporary, temporary.open("wb") as file:
            np.save(file, vectors, allow_pickle=False)
    return result | {"width": vectors.shape[1], "out": args.out and str(args.out)}


def text(result: dict[str, Any]) -> str:
    texts, lines = result["texts"], []
    for word, pieces in zip(texts, result.get("pieces", []), strict=False):
        if len(pieces) > 1 and len(texts) <= MOST_SHOWN:
            lines.append(f"{word} is the mean of {len(pieces)} pieces: {' '.join(pieces)}")
    if "analogy" in result:
        a, b, c = texts
        lines.append(f"{a} is to {b} as {c} is to:  {_near(result['analogy'])}")
    for word, near in zip(texts, result.get("neighbours", []), strict=False):
        lines.append(f"{word}:  {_near(near)}")
    if len(texts) > 1 and "cosines" in result:
        lines += ["", "cosines"]
        for word, row in zip(texts, result["cosines"], strict=True):
            lines.append(f"  {word[:20]:<20}" + "".join(f"{value:8.3f}" for value in row))
    size = f"{len(texts)} x {result['width']}"
    if result["out"]:
        lines.append(f"Wrote {size} float32 to {result['out']}.")
    return "\n".join(lines).strip() or f"{size} vectors; --out FILE.npy writes them."


def _near(pairs: list[tuple[str, float]]) -> str:
    return ", ".join(f"{piece!r} {value:.2f}" for piece, value in pairs)
