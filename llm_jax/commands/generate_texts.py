"""`generate` for a model that continues texts: by the engine, or by beams."""

from __future__ import annotations

import argparse
import math
import sys
from typing import TYPE_CHECKING, Any

from llm_jax.config import generative_of

if TYPE_CHECKING:
    from llm_jax.commands.generate_asked import Asked
    from llm_jax.data.tokenizers import Tokenizer
    from llm_jax.infer.completion_text import TextCompletion
    from llm_jax.infer.device_split import Split
    from llm_jax.infer.engine.engine import Engine
    from llm_jax.infer.engine.request import Request
    from llm_jax.language_model import LanguageModel


def texts(
    args: argparse.Namespace, model: LanguageModel, asked: Asked, split: Split
) -> dict[str, Any]:
    """What `generate` returns."""
    from llm_jax.infer.completion_text import complete
    from llm_jax.infer.generator import Pace, row_seed

    engine = _engine(args, model, asked, split)
    pace = Pace(engine)
    live = asked.texts == 1 and not args.json and sys.stdout.isatty()

    def show(new: str) -> None:
        if live:
            print(new, end="", flush=True)

    show(asked.prompts[0])
    answers = complete(
        engine, model.tokenizer, asked.requests, [args.stop] * len(asked.requests), asked.samples,
        on_text=show, after_step=pace.mark,
    )  # fmt: skip
    show("\n")
    samples = [
        {
            "prompt": prompt,
            **_sample(one, request, model.tokenizer, bool(args.stop)),
            "seed": row_seed(request.seed, number),
        }
        for prompt, request, group in zip(asked.prompts, asked.requests, answers, strict=True)
        for number, one in enumerate(group)
    ]
    result = {
        "text": samples[0]["text"],
        "tokens": sum(len(sample["ids"]) for sample in samples),
        "tokens_per_second": pace.tokens_per_second,
        "compile_seconds": pace.compile_seconds,
        "prefill_seconds": pace.prefill_seconds,
        "samples": samples,
    }
    if asked.draft or args.speculate:
        drafted, accepted = engine.stats.drafted, engine.stats.accepted
        rate = accepted / drafted if drafted else None
        result["speculation"] = {"drafted": drafted, "accepted": accepted, "rate": rate}
    return result if args.json else {**result, "streamed": live}


def _engine(args: argparse.Namespace, model: LanguageModel, asked: Asked, split: Split) -> Engine:
    from llm_jax.commands.generate_asked import engine_settings
    from llm_jax.infer.engine.engine import Engine
    from llm_jax.language_model import load_described

    draft = None
    if asked.draft:
        trust: dict[str, Any] = {"verify": not args.no_verify, "trust_code": args.trust_code}
        draft = load_described(asked.draft, split=split, beside=model, **trust)
    settings = engine_settings(asked, args.speculate or 0, model.mesh)
    return Engine(model, settings, draft=draft, frees=True)


def _sample(
    one: TextCompletion, request: Request, tokenizer: Tokenizer, has_stops: bool
) -> dict[str, Any]:
    stopped = one.finish_reason == "stop"
    sample: dict[str, Any] = {
        "text": one.text,
        "ids": [token.id for token in one.tokens],
        "stopped": stopped,
    }
    if has_stops:
        sample["stopped_by"] = one.stopped_by
    if request.constraint is not None:
        sample["complete"] = stopped and one.stopped_by is None
    if request.log_probs is not None:
        sample["log_probs"] = [
            {
                **_scored(tokenizer, token.id, token.log_prob),
                "top": [_scored(tokenizer, number, value) for number, value in token.top],
            }
            for token in one.tokens
        ]
    return sample


def _scored(tokenizer: Tokenizer, number: int, log_prob: float | None) -> dict[str, Any]:
    """A token with its log-probability in nats; null: the model excludes it."""
    from llm_jax.infer.streamed_text import spelled

    known = number < tokenizer.vocab_size
    finite = log_prob is not None and math.isfinite(log_prob)
    return {
        "id": number,
        "token": spelled(tokenizer, number) if known else "",
        "log_prob": log_prob if finite else None,
    }


def beams(args: argparse.Namespace, model: LanguageModel, asked: Asked) -> dict[str, Any]:
    """What `generate` returns with `--beams`."""
    from llm_jax.infer.beam import beam_search
    from llm_jax.infer.decoder import Decoder, compute_for_inference, prepared
    from llm_jax.infer.sampling import GREEDY
    from llm_jax.infer.streamed_text import TextStream

    (prompt,), (request,) = asked.prompts, asked.requests
    config = generative_of(model.config, "generate")
    compute = compute_for_inference(model.run.compute)
    decoder = Decoder(config, compute, GREEDY, model.tokenizer.vocab_size, request.stop_ids)
    params = prepared(model.params, config, compute)
    ids, stopped, log_prob = beam_search(
        params, decoder, request.prompt, beams=args.beams, max_tokens=args.max_tokens
    )
    stream = TextStream(model.tokenizer)
    new = stream.feed(ids) + stream.end()
    sample = {"prompt": prompt, "text": new, "ids": ids, "stopped": stopped, "log_prob": log_prob}
    result = {"text": new, "tokens": len(ids), "tokens_per_second": None, "samples": [sample]}
    return result if args.json else {**result, "streamed": False}
