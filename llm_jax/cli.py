"""`llm-jax <verb>`: finds the verb, parses its flags, prints its result, sets the exit code.

With `--json`, stdout gets exactly one JSON object, and everything else goes to stderr. A user's
mistake is one sentence on stderr and exit code 2, or 78 if the configuration can never run. A
failing disk is one sentence and exit code 1.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import itertools
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from llm_jax import __version__
from llm_jax.commands import compile_cache, overrides, peers, streams
from llm_jax.commands.json_line import json_line
from llm_jax.config import UserError, nearest
from llm_jax.facts.attached import WITHOUT_TPU, maybe_tpu
from llm_jax.runs.disk_errors import disk_sentence

# Verb → (module in llm_jax.commands, one line of help).
VERBS: dict[str, tuple[str, str]] = {
    "plan": ("plan", "turn a compute budget into a model, a mesh, a cost and a run.json"),
    "fit": ("fit", "fit a scaling law to the losses of runs"),
    "ladder": ("ladder", "train small runs on your own text and fit a scaling law to them"),
    "report": ("report", "compare the predicted and measured loss, speed and cost of a run"),
    "tokenizer train": ("tokenizer_train", "train a tokenizer on text"),
    "tokenizer extend": ("tokenizer_extend", "add pieces to the tokenizer and model of a run"),
    "tokenizer encode": ("tokenizer_encode", "turn text into token ids"),
    "tokenizer decode": ("tokenizer_decode", "turn token ids into text"),
    "data curate": ("data_curate", "filter, mask and deduplicate documents by a recipe"),
    "data classifier": ("data_classifier", "train a classifier of text quality from examples"),
    "data build": ("data_build", "build a tokenised tfds dataset from files"),
    "data label": ("data_label", "build a dataset of labelled examples, to fine-tune an encoder"),
    "data inspect": ("data_inspect", "show what a dataset holds"),
    "data mix": ("data_mix", "propose the weights of a mixture, and show epochs by source"),
    "preflight": ("preflight", "compile the train step for a TPU slice: memory, collectives"),
    "train": ("train", "train a recipe, or resume its run"),
    "eval": ("eval", "measure a run's loss and bits per byte on held-out text"),
    "emergence": ("emergence", "show how scores on tasks grow with compute, and forecast them"),
    "lineage": ("lineage", "show what a checkpoint has read, and from where it began"),
    "generate": ("generate", "continue prompts with a run's model"),
    "serve": ("serve", "answer over HTTP as OpenAI's interface does, with a page to try models"),
    "predict": ("predict", "label texts or words, or find answers, with a fine-tuned encoder"),
    "embed": ("embed", "show vectors of words and texts, their neighbours and analogies"),
    "export": ("export", "write a run's checkpoint as Hugging Face files, logits compared"),
    "import": ("import_", "make a run from Hugging Face files, logits compared"),
    "launch run": ("launch_run", "run on one machine or many, and restart what fails"),
    "launch preflight": (
        "launch_preflight",
        "compare a GKE cluster with a job, creating nothing",
    ),
    "launch status": ("launch_status", "show what a launched job is doing, or why it stopped"),
    "launch logs": ("launch_logs", "show the output of a launched job, all hosts merged"),
    "launch stop": ("launch_stop", "stop a launched job and list what may still cost money"),
    "launch list": ("launch_list", "list the launched jobs of a back end or a folder"),
}

TRACEBACK = "LLM_JAX_TRACEBACK"
"""Environment variable that makes internal errors print a traceback."""
WRONG_PATH = (errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOTDIR)


class Parser(argparse.ArgumentParser):
    """argparse with one-sentence errors that suggest the nearest known word."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{self.prog}: {message}.")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            name = "/".join(action.option_strings) or action.metavar or action.dest
            raise UserError(f"{name} is {value!r}: {nearest(str(value), action.choices)}")

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        """argparse would read `--flag=--` as an empty list, and `--file=` as this folder."""
        name = "/".join(action.option_strings) or action.metavar or action.dest
        if action.option_strings and arg_strings == ["--"]:
            raise UserError(f"{name} is '--': give a value.")
        if action.type is Path and "" in arg_strings:
            raise UserError(f"{name} is empty: give a path.")
        return super()._get_values(action, arg_strings)

    @property
    def flags(self) -> list[str]:
        return [flag for flag in self._option_string_actions if flag.startswith("--")]


def usage() -> str:
    width = max(map(len, VERBS)) + 2
    lines = [f"  {verb:<{width}}{help_}" for verb, (_, help_) in VERBS.items()]
    return "\n".join(
        [
            "usage: llm-jax <verb> [flags]      (llm-jax <verb> --help for a verb's flags)",
            "",
            "From a compute budget to a pretrained language model.",
            "",
            *lines,
        ]
    )


def split_verb(argv: Sequence[str]) -> tuple[str, list[str]]:
    """The verb that `argv` starts with, and what follows it."""
    for words in (2, 1):
        verb = " ".join(argv[:words])
        if verb in VERBS:
            return verb, list(argv[words:])
    first = argv[0]
    inner = [verb for verb in VERBS if verb.startswith(first + " ")]
    if inner:
        raise UserError(f"llm-jax {first} needs one more word: {', '.join(inner)}.")
    raise UserError(f"llm-jax has no verb {first!r}: {nearest(first, VERBS)}")


def parser_of(verb: str) -> tuple[Any, Parser]:
    """The verb's module, and a parser with its flags."""
    module = importlib.import_module(f"llm_jax.commands.{VERBS[verb][0]}")
    parser = Parser(
        prog=f"llm-jax {verb}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    module.add_arguments(parser)
    return module, parser


def parse(verb: str, rest: list[str]) -> tuple[Any, argparse.Namespace]:
    """The verb's module and its parsed flags."""
    if verb == "launch run" and rest[:1] == ["data"]:
        return _placed(rest)
    module, parser = parser_of(verb)
    if getattr(module, "OVERRIDES", False):
        return module, _with_overrides(parser, rest)
    for word in itertools.takewhile(lambda word: word != "--", rest):
        if overrides.is_flag(word) and word.split("=")[0] not in parser.flags:
            raise UserError(f"{parser.prog} has no flag {word!r}: {nearest(word, parser.flags)}")
    return module, parser.parse_args(rest)


def _placed(words: list[str]) -> tuple[Any, argparse.Namespace]:
    """`launch run` of a verb on data: the flags are that verb's, all words are in `placed`."""
    from llm_jax.commands import launch_data

    verb = " ".join(words[:2])
    if verb not in launch_data.VERBS:
        raise UserError(f"llm-jax launch run has no {verb!r}: {nearest(verb, launch_data.VERBS)}")
    args = parse(verb, words[2:])[1]
    args.placed = words
    return launch_data, args


def _with_overrides(parser: Parser, rest: list[str]) -> argparse.Namespace:
    """The flags of a verb that takes a CONFIG; flags of config fields go to `overrides`."""
    words, fields = overrides.split(rest, parser.flags)
    helps = [word for word in words if word in overrides.HELP]
    args = parser.parse_args([word for word in words if word not in overrides.HELP])
    if helps:
        overrides.print_help(parser, args.config)
    args.overrides, args.flags = fields, parser.flags
    return args


def restart_with(environment: dict[str, str]) -> None:
    """Restarts this program in place, to set the variables of `environment` that are not set."""
    missing = {name: value for name, value in environment.items() if name not in os.environ}
    if missing:
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | missing)


def main(argv: Sequence[str] | None = None) -> NoReturn:
    is_program = argv is None
    argv = list(sys.argv[1:] if argv is None else argv)
    if is_program:
        streams.prepare()
    try:
        exit_code = _call(argv, is_program)
        sys.stdout.flush()
    except UserError as error:
        streams.complain(str(error))
        if is_program:
            peers.tell(argv, str(error), error.exit_code)
        if error.abandons_threads:
            os._exit(error.exit_code)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        streams.give_up_output()
        sys.exit(1)
    except OSError as error:
        streams.complain(disk_sentence(error))
        # An error that may pass is not a usage error.
        exit_code = 2 if error.errno in WRONG_PATH else 1
        if is_program:
            streams.give_up_output()  # stdout may be what cannot be written
            peers.tell(argv, disk_sentence(error), exit_code)
        sys.exit(exit_code)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        exit_code = _unforeseen(error, argv)
        if is_program:
            peers.tell(argv, f"{type(error).__name__}: {error}", exit_code)
        sys.exit(exit_code)
    sys.exit(exit_code)


def _call(argv: list[str], is_program: bool) -> int:
    """Runs the verb in `argv` and prints its result; returns the exit code."""
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if argv else 2
    if argv[0] == "--version":
        print(__version__)
        return 0
    streams.check_arguments(argv)
    streams.check_working_folder()
    verb, rest = split_verb(argv)
    module, args = parse(verb, rest)
    if is_program and hasattr(module, "environment"):
        restart_with(module.environment())
    if is_program and not maybe_tpu():
        os.environ.update(WITHOUT_TPU | os.environ)
    if is_program and getattr(module, "COMPILES", False):
        os.environ.update(compile_cache.environment() | os.environ)
    result = module.run(args)
    exit_code = result.pop("exit_code", 0)
    print(json_line(result, sys.stdout.encoding) if args.json else module.text(result))
    return exit_code


def _unforeseen(error: Exception, argv: list[str]) -> int:
    """Reports an error that no verb expects in one sentence; returns the exit code.

    Running out of memory is not a bug. Everything else is: its traceback is shown on request, and
    always for `train`, whose run may be a week old.
    """
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
        streams.complain(
            f"Out of memory ({error or 'in this process'}): make the batch, the model or the input "
            "smaller."
        )
        return 1
    if os.environ.get(TRACEBACK) or argv[0] == "train":
        traceback.print_exc()
    streams.complain(
        f"internal error ({type(error).__name__}: {error}). This is a bug in llm-jax: run it again "
        f"with {TRACEBACK}=1 to see a traceback, and report it."
    )
    return 1
