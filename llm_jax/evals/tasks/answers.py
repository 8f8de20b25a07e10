"""Answers that tasks have generated: from their settings to requests of the engine, and back."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from llm_jax.config import UserError
from llm_jax.infer.sampling import Sampling

if TYPE_CHECKING:
    from llm_jax.infer.engine.engine import Engine
    from llm_jax.language_model import LanguageModel

LIMITS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
"""Names of the most tokens of an answer; the first of them counts, as in lm-eval."""
DEFAULT = 256
"""Most tokens of an answer where a task says nothing, as in lm-eval."""
SAMPLED = ("top_k", "top_p", "min_p")
"""Settings that only count where an answer is sampled."""


def settings_of(task: str, wanted: dict[str, Any]) -> tuple[list[str], int, Sampling]:
    """Stop strings, most tokens and sampling of a task's `generation_kwargs`.

    Raises:
      UserError: it has a setting that we do not know.
    """
    left = dict(wanted)
    until = left.pop("until", None) or []
    stops = [until] if isinstance(until, str) else [str(stop) for stop in until]
    limits = [left.pop(name, None) for name in LIMITS]
    most = next((int(limit) for limit in limits if limit is not None), DEFAULT)
    temperature = float(left.pop("temperature", 0.0) or 0.0)
    if not left.pop("do_sample", temperature > 0):
        temperature = 0.0
    filters = {name: left.pop(name) for name in SAMPLED if left.get(name) is not None}
    if left.get("num_beams") == 1:
        left.pop("num_beams")
    if left:
        raise UserError(
            f"Task {task!r} wants answers with {', '.join(sorted(left))}, which generation here "
            "does not know: remove it from the task's generation_kwargs."
        )
    if temperature == 0:
        filters = {}
    return [stop for stop in stops if stop], most, Sampling(temperature=temperature, **filters)


@contextlib.contextmanager
def running(model: LanguageModel, given: Engine | None = None) -> Iterator[Engine]:
    """The engine that is given, which runs, or one of its own that ends with the block."""
    if given is not None:
        yield given
        return
    from llm_jax.infer.engine.engine import Engine

    made = Engine(model)
    made.start()
    try:
        yield made
    finally:
        made.close(drain=False)


def generate(
    engine: Engine,
    prompts: Sequence[tuple[list[int], dict[str, Any]]],
    tasks: Sequence[str],
    *,
    model: LanguageModel,
    seed: int,
    truncated: Counter[str],
    shortened: Counter[str],
) -> list[str]:
    """The answer of an engine to each prompt, up to the first of its stop strings.

    A prompt that leaves too little room in the context loses its beginning, and an answer gets at
    most half of the context. Both are counted, by task.
    """
    from llm_jax.infer.completion_text import complete
    from llm_jax.infer.engine.request import Request

    room = model.config.max_seq_len
    ends = model.stop_ids or (model.tokenizer.eos_id,)
    requests: list[Request] = []
    stops: list[list[str]] = []
    for number, (task, (ids, wanted)) in enumerate(zip(tasks, prompts, strict=True)):
        stop, most, sampling = settings_of(task, wanted)
        shortened[task] += most > room // 2
        most = min(most, room // 2)
        truncated[task] += len(ids) > room - most
        requests.append(
            Request(
                prompt=tuple(ids[-(room - most) :]),
                max_tokens=most,
                sampling=sampling,
                seed=(seed + number) % 2**32,
                stop_ids=tuple(ends),
            )
        )
        stops.append(stop)
    answers = complete(engine, model.tokenizer, requests, stops)
    return [one.text for (one,) in answers]
