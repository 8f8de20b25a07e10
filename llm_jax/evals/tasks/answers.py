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
SAMPLED = {"top_k": (0, -1), "top_p": (), "min_p": (0,)}
"""Settings that only count where an answer is sampled, each with the values that switch it off."""


def settings_of(task: str, wanted: dict[str, Any]) -> tuple[list[str], int, Sampling]:
    """Stop strings, most tokens and sampling of a task's `generation_kwargs`.

    Raises:
      UserError: it has a setting that we do not know, or a value that is out of range.
    """
    left = dict(wanted)
    until = left.pop("until", None) or []
    stops = [until] if isinstance(until, str) else until
    limits = [left.pop(name, None) for name in LIMITS]
    try:
        most = int(next((limit for limit in limits if limit is not None), DEFAULT))
        temperature = float(left.pop("temperature", None) or 0.0)
        stops = [str(stop) for stop in stops if stop]
    except (TypeError, ValueError):
        raise UserError(
            f"In generation_kwargs of task {task!r}, until must be a text or a list of texts, and "
            "the most tokens and the temperature must be numbers."
        ) from None
    samples = left.pop("do_sample", None)
    if samples and temperature == 0:
        raise UserError(
            f"Task {task!r} wants sampled answers (do_sample) and gives no temperature above 0: "
            "add one to its generation_kwargs, or leave do_sample out."
        )
    if samples is False:
        temperature = 0.0
    given = {name: left.pop(name, None) for name in SAMPLED}
    if left.get("num_beams") == 1:
        left.pop("num_beams")
    if left:
        raise UserError(
            f"Task {task!r} wants answers with {', '.join(sorted(left))}, which generation here "
            "does not know: remove it from the task's generation_kwargs."
        )
    if most < 1:
        raise UserError(f"Task {task!r} wants answers of {most} tokens: give 1 or more.")
    filters = {n: v for n, v in given.items() if v is not None and v not in SAMPLED[n]}
    if temperature == 0:
        filters = {}
    try:
        sampling = Sampling(temperature=temperature, **filters)
    except UserError as error:
        raise UserError(f"In generation_kwargs of task {task!r}: {error}") from None
    return stops, most, sampling


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
    asked: Counter[str] = Counter()
    for task, (ids, wanted) in zip(tasks, prompts, strict=True):
        stop, most, sampling = settings_of(task, wanted)
        shortened[task] += most > room // 2
        most = min(most, room // 2)
        truncated[task] += len(ids) > room - most
        requests.append(
            Request(
                prompt=tuple(ids[-(room - most) :]),
                max_tokens=most,
                sampling=sampling,
                # Of its place in its task, whatever else is asked for.
                seed=(seed + asked[task]) % 2**32,
                stop_ids=tuple(ends),
            )
        )
        stops.append(stop)
        asked[task] += 1
    answers = complete(engine, model.tokenizer, requests, stops)
    return [one.text for (one,) in answers]
