"""Answer over HTTP as OpenAI's interface does: completions, chat, embeddings, scores of a text.

A model is the folder of a run, RUN@STEP for one of its checkpoints, or a Hugging Face folder. At /
is a page to try models and to compare two. SIGTERM and Ctrl-C let accepted requests be answered.

examples:
  llm-jax serve runs/first
  llm-jax serve early=runs/first@20 late=runs/first --port 8080
  llm-jax serve hf --host 0.0.0.0 --api-key-file key.txt
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from llm_jax.commands import (
    add_draft_arguments,
    add_tensor_argument,
    count,
    count_up_to,
    number,
)
from llm_jax.config import UserError, read_text

COMPILES = True
PACKAGES = ("fastapi", "uvicorn", "prometheus_client", "jinja2")
SHORTEST_KEY = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "models", nargs="+", metavar="[NAME=]RUN", help="models, by default named as their folders"
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: %(default)s)"
    )
    parser.add_argument(
        "--port", type=port, default=8000, help="0 takes a free one (default: %(default)s)"
    )
    parser.add_argument(
        "--api-key-env", metavar="NAME", help="environment variable with a key to ask clients for"
    )
    parser.add_argument(
        "--api-key-file", type=Path, metavar="FILE", help="file with such keys, one on each line"
    )
    parser.add_argument(
        "--chat-template",
        action="append",
        default=[],
        metavar="[NAME=]FILE",
        help="Jinja template of conversations (default: that in the model's folder)",
    )
    parser.add_argument(
        "--slots",
        type=count_up_to(1024),
        default=8,
        metavar="N",
        help="texts that are made at once, by each model (default: %(default)s)",
    )
    parser.add_argument(
        "--max-len", type=count, metavar="N", help="most tokens of a text (default: the context)"
    )
    add_tensor_argument(parser)
    add_draft_arguments(parser)
    parser.add_argument(
        "--weights",
        choices=("run", "int8"),
        default="run",
        help="the models' matrices: in the run's dtype, or in 8 bits (default: %(default)s)",
    )
    parser.add_argument(
        "--queue",
        type=count_up_to(1_000_000),
        default=256,
        metavar="N",
        help="texts that may wait, for each model (default: %(default)s)",
    )
    parser.add_argument(
        "--max-body",
        type=count,
        default=4 << 20,
        metavar="BYTES",
        help="largest body of a request (default: %(default)s)",
    )
    parser.add_argument(
        "--timeout",
        type=number,
        default=600.0,
        metavar="SECONDS",
        help="that an answer may take (default: %(default)g)",
    )
    parser.add_argument(
        "--no-verify",
        action="store_true",
        help="do not check the checkpoints' files against their checksums",
    )
    parser.add_argument(
        "--trust-code",
        action="store_true",
        help="run the Python code that a run's model.kind names, if it is not a part of ours",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="check all of this, load nothing and end"
    )


def port(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = -1
    if not 0 <= value < 65536:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port, 0 to 65535")
    return value


def run(args: argparse.Namespace) -> dict[str, Any]:
    from llm_jax.config.extras import require_packages

    require_packages("llm-jax serve", *PACKAGES)
    if args.timeout <= 0:
        raise UserError(f"--timeout is {args.timeout:g}: give seconds above 0.")
    if args.max_body < 1024:
        raise UserError(f"--max-body is {args.max_body}: give at least 1024 bytes.")
    keys = _keys(args)
    return _served(args, keys)


def _served(args: argparse.Namespace, keys: tuple[str, ...]) -> dict[str, Any]:
    from llm_jax.infer.device_split import described
    from llm_jax.infer.engine.settings import EngineSettings
    from llm_jax.parallel.platform import platform
    from llm_jax.runs.model_places import draft_place, places_of
    from llm_jax.serve import listen, opening
    from llm_jax.serve.app import Server
    from llm_jax.serve.settings import Settings, most_connections

    places = places_of(args.models)
    texts = len(places) * (args.slots + args.queue)
    settings = Settings(
        host=args.host, port=args.port, keys=keys, most_body=args.max_body, seconds=args.timeout,
        connections=most_connections(texts),
    )  # fmt: skip
    if settings.connections < texts:
        _say(
            f"{settings.connections:,} connections may be open, fewer than the {texts:,} texts "
            "that --slots and --queue let in: raise the limit on open files (ulimit -n)."
        )
    templates = opening.templates_of(args.chat_template, places)
    draft = draft_place(args.draft)
    if draft and len(places) > 1:
        raise UserError(f"--draft goes with one model, not {len(places)}: serve them apart.")
    for place in (*places, *filter(None, [draft])):
        if place.note:
            _say(place.note)
    engine = EngineSettings(
        slots=args.slots, max_len=args.max_len, queue=args.queue, speculate=args.speculate or 0,
        weights=args.weights,
    )  # fmt: skip
    looked_at, smaller = opening.looked_at(places, draft, engine, args.tensor)
    if args.weights == "int8" and platform() == "cpu":
        _say("--weights int8 is for accelerators: on a CPU it is slower and saves no memory.")
    with listen.listen(settings) as opened:
        if args.dry_run:
            found = {place.name: str(place.folder) for place in places}
            return {"url": opened.urls[0], "models": list(found), "folders": found}
        models = [
            opening.load(
                said,
                templates.get(said.place.name),
                engine,
                draft=smaller,
                verify=not args.no_verify,
                trust_code=args.trust_code,
                tensor=args.tensor,
            )
            for said in looked_at
        ]
        if not keys and not settings.is_loopback:
            _say("warning: whoever reaches this address may use the models: --api-key-file asks "
                 "for a key")  # fmt: skip
        for model in models:
            step = "" if model.model.step is None else f", step {model.model.step:,}"
            _say(f"{model.name}: {model.place}{step}, {model.context:,} tokens"
                 f"{'' if model.template else ', no chat template'}")  # fmt: skip
            memory = model.engine.memory
            _say(f"{model.name}: {_megabytes(memory.parameters)} of parameters, "
                 f"{_megabytes(memory.cache)} of cache")  # fmt: skip
            if model.model.mesh is not None:
                _say(f"{model.name}: {described(model.model.mesh)}")
        urls = opened.urls
        _say(f"serving at {' and '.join(urls)}")
        server = Server(models, settings)
        exit_code = listen.serve(server, opened)
    result: dict[str, Any] = {"url": urls[0], "models": [model.name for model in models]}
    totals = {"tokens": sum(model.engine.stats.tokens for model in models)}
    return result | totals | {"exit_code": exit_code}


def text(result: dict[str, Any]) -> str:
    if "folders" in result:
        lines = [f"{name}: {folder}" for name, folder in result["folders"].items()]
        return "\n".join([*lines, f"would be served at {result['url']}"])
    return f"Made {result['tokens']:,} tokens."


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _keys(args: argparse.Namespace) -> tuple[str, ...]:
    """Keys are never words of the command line, which every user of the machine can read."""
    found: list[str] = []
    if args.api_key_env is not None:
        value = os.environ.get(args.api_key_env, "").strip()
        if not value:
            raise UserError(f"--api-key-env: the variable {args.api_key_env!r} is not set.")
        found.append(value)
    if args.api_key_file is not None:
        try:
            lines = [line.strip() for line in read_text(args.api_key_file).splitlines()]
        except UserError as error:
            raise UserError(f"--api-key-file: {error}") from None
        if not any(lines):
            raise UserError(f"--api-key-file {args.api_key_file} holds no key: write one in it.")
        found += filter(None, lines)
    for key in found:
        if len(key) < SHORTEST_KEY or not key.isascii() or not key.isprintable() or " " in key:
            raise UserError(
                f"A key must have at least {SHORTEST_KEY} characters of ASCII without spaces: "
                "make one with `openssl rand -hex 24`."
            )
    return tuple(found)
