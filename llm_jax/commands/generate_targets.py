"""`generate` for an encoder-decoder: the prompts are sources, and their targets are made."""

from __future__ import annotations

import argparse
import re
from typing import Any

from llm_jax.config import SourceToTarget, UserError

NAME = re.compile(r"<extra_id_\d{1,9}>")


def targets(
    args: argparse.Namespace,
    trained: Any,
    model: SourceToTarget,
    prompts: list[str],
    stop_ids: tuple[int, ...],
) -> dict[str, Any]:
    """What `generate` returns.

    Raises:
      UserError: it is to be sampled.
    """
    from llm_jax.data.tokenizers.sentinels import sentinel_ids, start_id
    from llm_jax.infer.decoder import compute_for_inference
    from llm_jax.infer.sources_to_targets import Writer, beam, greedy, prepared

    if not args.beams and args.temperature != 0:
        raise UserError(
            f"--temperature is {args.temperature:g}, but model.kind is {model.kind!r}, whose "
            "targets are not sampled: give --temperature 0, or --beams N."
        )
    tokenizer, compute = trained.tokenizer, compute_for_inference(trained.config.compute)
    params = prepared(trained.params, model, compute)
    sentinels = sentinel_ids(tokenizer, model)
    limit = max(tokenizer.vocab_size, int(sentinels.max()) + 1)
    writer = Writer(model, compute, limit, start_id(tokenizer, model), stop_ids)
    sources = [source_ids(prompt, tokenizer, sentinels) for prompt in prompts]
    if args.beams:
        one = beam(params, writer, sources[0], beams=args.beams, max_tokens=args.max_tokens)
        made = [one]
    else:
        made = greedy(params, writer, sources, max_tokens=args.max_tokens)
    places = {int(number): f"<extra_id_{i}>" for i, number in enumerate(sentinels)}
    samples = [
        {
            "prompt": prompt,
            "text": _text(one.ids, tokenizer, places),
            "ids": one.ids,
            "stopped": one.stopped,
            "log_prob": one.log_prob,
        }
        for prompt, one in zip(prompts, made, strict=True)
    ]
    result = {
        "text": samples[0]["text"],
        "tokens": sum(len(one.ids) for one in made),
        "tokens_per_second": None,
        "samples": samples,
    }
    return result if args.json else {**result, "streamed": False}


def source_ids(prompt: str, tokenizer: Any, sentinels: Any) -> list[int]:
    """The ids of a source, with its end: `<extra_id_0>` … in a prompt are sentinels."""
    ids = list[int]()
    for part in re.split(rf"({NAME.pattern})", prompt):
        name = NAME.fullmatch(part)
        number = int(part[len("<extra_id_") : -1]) if name else -1
        known = 0 <= number < len(sentinels)
        ids += [int(sentinels[number])] if known else tokenizer.encode(part)
    return [*ids, tokenizer.eos_id]


def _text(ids: list[int], tokenizer: Any, sentinels: dict[int, str]) -> str:
    """The text of `ids`, with the names of sentinels."""
    parts, run = [], list[int]()
    for number in ids:
        if number not in sentinels:
            run.append(number)
            continue
        parts += [tokenizer.decode(run), sentinels[number]]
        run = []
    return "".join([*parts, tokenizer.decode(run)])
