"""What `generate` is asked for. What cannot be is found before a model is loaded."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_jax.config import (
    Architecture,
    SourceToTarget,
    UserError,
    generative_of,
    read_text,
)
from llm_jax.runs.model_places import draft_place, place_of

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from llm_jax.convert.describe import Described
    from llm_jax.data.tokenizers import Tokenizer
    from llm_jax.infer.engine.request import Request
    from llm_jax.infer.engine.settings import EngineSettings
    from llm_jax.infer.sampling import Sampling

FILTERS = ("top_k", "top_p", "min_p")
SHAPING = (
    "repetition_penalty", "presence_penalty", "frequency_penalty", "logit_bias", "schema", "regex",
    "grammar",
)  # fmt: skip
"""Flags with which the engine drafts nothing."""
DRAFTING = ("draft", "speculate")
BY_ENGINE = (*SHAPING, "stop", "samples", "log_probs", *DRAFTING)
"""Flags of texts that the engine makes, neither beams nor targets."""
OFF: dict[str, Any] = {"samples": 1, "repetition_penalty": 1, "presence_penalty": 0,
                       "frequency_penalty": 0}  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """What to make.

    Attributes:
      requests: one for each prompt, with the seed of its first text; none for an encoder-decoder.
      samples: texts for each prompt.
      model: that makes the texts; its weights are not read yet.
      draft: the model that drafts tokens; None: none does.
      how: the samples are drawn, in words.
    """

    prompts: list[str]
    requests: list[Request]
    samples: int
    model: Described
    draft: Described | None
    how: str

    @property
    def texts(self) -> int:
        return len(self.prompts) * self.samples

    @property
    def notes(self) -> list[str]:
        """What a reader should know of the folders."""
        return [one.place.note for one in (self.model, self.draft) if one and one.place.note]


def asked_for(args: argparse.Namespace) -> Asked:
    """Raises `UserError` if a value is out of range, or the flags do not go together."""
    from llm_jax.convert.describe import describe

    sampling, prompts = _sampling(args), _prompts(args)
    _check_flags(args, prompts)
    form = _form(args)
    place, drafting = place_of(args.run, "generate", args.step), draft_place(args.draft)
    if args.keep and not place.is_run:
        raise UserError(
            f"--keep keeps samples in a run, and {str(place.folder)!r} is a Hugging Face folder: "
            "leave it out."
        )
    model, draft = describe(place), describe(drafting) if drafting else None
    if args.beams and args.beams > model.tokenizer.vocab_size:
        raise UserError(
            f"--beams is {args.beams}, more than the {model.tokenizer.vocab_size} tokens of the "
            "vocabulary: give fewer."
        )
    requests = list["Request"]()
    if isinstance(model.architecture, SourceToTarget):
        _check_target(args, model.architecture)
    else:
        generative_of(model.architecture, "generate")
        requests = _requests(args, prompts, sampling, form, model)
        _check_requests(requests, model.architecture, model.tokenizer)
    asked = Asked(prompts, requests, args.samples, model, draft, _how(args))
    if draft or args.speculate:
        _check_drafting(asked, args.speculate or 0)
    return asked


def _sampling(args: argparse.Namespace) -> Sampling:
    from llm_jax.infer.sampling import Sampling

    changed = {name: getattr(args, name) for name in SHAPING[:3] if getattr(args, name) is not None}
    return Sampling(
        temperature=args.temperature, top_k=args.top_k, top_p=args.top_p, min_p=args.min_p,
        logit_bias=tuple(args.logit_bias), **changed,
    )  # fmt: skip


def _prompts(args: argparse.Namespace) -> list[str]:
    prompts = list(args.prompt)
    if args.prompt_file:
        # Line ends become \n, as in cleaned documents. The final newline is an editor's.
        text = _read(args.prompt_file, "--prompt-file")
        prompts.append(text.replace("\r\n", "\n").replace("\r", "\n").removesuffix("\n"))
    return prompts or [""]


def _read(path: Path, flag: str) -> str:
    try:
        return read_text(path)
    except UserError as error:
        raise UserError(f"{flag} {error}") from None


def _given(args: argparse.Namespace, names: Sequence[str]) -> str:
    """The flags of `names` that ask for something, in words."""
    values = {name: getattr(args, name) for name in names}
    asked = [
        "--" + name.replace("_", "-")
        for name, value in values.items()
        if value is not None and value != [] and value != OFF.get(name)
    ]
    return " and ".join(filter(None, [", ".join(asked[:-1]), *asked[-1:]]))


def _check_flags(args: argparse.Namespace, prompts: list[str]) -> None:
    if not 0 <= args.seed < 2**32:
        raise UserError(f"--seed is {args.seed}: give a number from 0 to {2**32 - 1}.")
    if "" in args.stop:
        raise UserError("--stop is empty: give text, or leave it out.")
    if args.beams and len(prompts) > 1:
        raise UserError(f"--beams takes one prompt, not {len(prompts)}: give them one by one.")
    if args.beams and (flags := _given(args, (*FILTERS, *BY_ENGINE))):
        raise UserError(f"--beams searches for one most likely text: leave out {flags}.")
    if args.samples > 1 and args.temperature == 0:
        raise UserError(
            f"--samples is {args.samples}, but with --temperature 0 all of them would be the same: "
            "give a temperature above 0, or one sample."
        )
    shaping, drafting = _given(args, SHAPING), _given(args, DRAFTING)
    if shaping and drafting:
        raise UserError(
            f"Tokens are not drafted for texts with {shaping}: leave that out, or {drafting}."
        )


def _form(args: argparse.Namespace) -> dict[str, str]:
    """The form that texts must have, as `constraint_of` takes it."""
    form = {"schema": args.schema, "grammar": args.grammar}
    files = {name: _read(path, f"--{name}") for name, path in form.items() if path is not None}
    return files if args.regex is None else {"regex": args.regex}


def _check_target(args: argparse.Namespace, model: SourceToTarget) -> None:
    if flags := _given(args, BY_ENGINE):
        raise UserError(
            f"model.kind is {model.kind!r}, whose targets are made without {flags}: leave that out."
        )
    if not args.beams and args.temperature != 0:
        raise UserError(
            f"--temperature is {args.temperature:g}, but model.kind is {model.kind!r}, whose "
            "targets are not sampled: give --temperature 0, or --beams N."
        )


def _requests(
    args: argparse.Namespace,
    prompts: list[str],
    sampling: Sampling,
    form: dict[str, str],
    model: Described,
) -> list[Request]:
    from llm_jax.infer.constraint import constraint_of
    from llm_jax.infer.engine.request import Request
    from llm_jax.infer.generator import row_seed

    tokenizer, ends = model.tokenizer, model.stop_ids
    constraint = constraint_of(tokenizer, ends, **form)
    return [
        Request(
            prompt=(tokenizer.bos_id, *tokenizer.encode(prompt)),
            max_tokens=args.max_tokens,
            sampling=sampling,
            seed=row_seed(args.seed, place * args.samples),
            stop_ids=ends,
            log_probs=args.log_probs,
            constraint=constraint,
        )
        for place, prompt in enumerate(prompts)
    ]


def _check_requests(
    requests: list[Request], architecture: Architecture, tokenizer: Tokenizer
) -> None:
    from llm_jax.infer.decoder import check_room

    for request in requests:
        check_room(architecture, len(request.prompt), request.max_tokens)
    for token, _ in requests[0].sampling.logit_bias:
        if token >= tokenizer.vocab_size:
            raise UserError(
                f"--logit-bias names token {token}: give ids from 0 to {tokenizer.vocab_size - 1}."
            )


def _check_drafting(asked: Asked, speculate: int) -> None:
    from llm_jax.infer.engine.engine import longest_text
    from llm_jax.infer.engine.speculative_batch import check_speculation, check_tokenizers

    model, draft = generative_of(asked.model.architecture, "--speculate"), None
    if asked.draft:
        check_tokenizers(asked.model.tokenizer, asked.draft.tokenizer)
        draft = generative_of(asked.draft.architecture, "--draft")
        _check_draft_room(draft.max_seq_len, asked.requests)
    settings = engine_settings(asked, speculate)
    check_speculation(model, draft, settings, longest_text(model.max_seq_len, settings.max_len))


def engine_settings(asked: Asked, speculate: int, mesh: Mesh | None = None) -> EngineSettings:
    """Of the engine that makes the texts.

    Args:
      mesh: devices that the model is on; None: one.
    """
    from llm_jax.infer.generator import settings_for

    models = filter(None, [asked.model, asked.draft])
    context = min(one.architecture.max_seq_len for one in models)
    return settings_for(context, asked.texts, _longest(asked.requests), mesh, speculate)


def _longest(requests: list[Request]) -> int:
    return max(len(request.prompt) + request.max_tokens for request in requests)


def _check_draft_room(context: int, requests: list[Request]) -> None:
    if (longest := _longest(requests)) > context:
        raise UserError(
            f"A prompt and --max-tokens have {longest} tokens together, more than the context of "
            f"the draft, which is {context}: shorten one of them, or leave --draft out."
        )


def _how(args: argparse.Namespace) -> str:
    """How the samples are drawn, in words."""
    if args.beams:
        return f"{args.beams} beams"
    greedy = args.temperature == 0
    names = () if greedy else ("temperature", *FILTERS, "seed")
    parts = ["greedy"] if greedy else []
    for name in (*names, *SHAPING, "stop", "samples", *DRAFTING):
        value = getattr(args, name)
        if value is None or value == [] or value == OFF.get(name):
            continue
        word = f"{value:g}" if isinstance(value, float) else str(value)
        if name == "logit_bias":
            word = " ".join(f"{token}={added:g}" for token, added in value)
        elif name == "stop":
            word = " ".join(map(repr, value))
        parts.append(f"{name.replace('_', '-')} {word}")
    return ", ".join(parts)
