"""`generate` for an encoder-decoder: the prompts are sources, and their targets are made."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING, Any

from llm_jax.config import SourceToTarget

if TYPE_CHECKING:
    from llm_jax.language_model import LanguageModel

NAME = re.compile(r"<extra_id_\d{1,9}>")


def targets(args: argparse.Namespace, loaded: LanguageModel, prompts: list[str]) -> dict[str, Any]:
    """What `generate` returns."""
    from llm_jax.data.tokenizers.sentinels import sentinel_ids, start_id
    from llm_jax.infer.decoder import compute_for_inference
    from llm_jax.infer.sources_to_targets import Writer, beam, greedy, prepared

    tokenizer, compute = loaded.tokenizer, compute_for_inference(loaded.run.compute)
    model = loaded.config
    assert isinstance(model, SourceToTarget)
    params = prepared(loaded.params, model, compute)
    sentinels = sentinel_ids(tokenizer, model)
    limit = max(tokenizer.vocab_size, int(sentinels.max()) + 1)
    writer = Writer(model, compute, limit, start_id(tokenizer, model), loaded.stop_ids)
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
