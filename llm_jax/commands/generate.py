"""Continue prompts with the model of a run or of a Hugging Face folder.

  llm-jax generate runs/quickstart --prompt "def main(" --max-tokens 100
  llm-jax generate runs/quickstart --prompt "The" --prompt "A" --temperature 0.8 --top-p 0.95
  llm-jax generate runs/quickstart --prompt "The" --samples 3 --stop "." --repetition-penalty 1.1
  llm-jax generate runs/quickstart --prompt-file start.txt --beams 4
  llm-jax generate hf --prompt "The" --draft runs/quickstart@500

Without a prompt, it starts a new document. A single text streams to the terminal. What changes the
choice of a token applies in the order logit bias, form, penalties, temperature, top-k, top-p,
min-p. A prompt of an encoder-decoder is its source, whose target is made with --temperature 0 or by
beams.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from llm_jax.commands import (
    add_checkpoint_arguments,
    add_draft_arguments,
    add_tensor_argument,
    count,
    count_up_to,
    number,
    seed,
)
from llm_jax.config import SourceToTarget
from llm_jax.runs.kept import keep_samples

COMPILES = True
MOST_TOP = 20
"""As of the engine's requests, whose module imports JAX."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "run", metavar="RUN", help="a run's folder, RUN@STEP, or a Hugging Face folder"
    )
    add_checkpoint_arguments(parser)
    parser.add_argument(
        "--prompt",
        action="append",
        default=[],
        metavar="TEXT",
        help="text to continue; repeat the flag for several prompts",
    )
    parser.add_argument(
        "--prompt-file",
        type=Path,
        metavar="FILE",
        help="UTF-8 file with one more prompt; its byte-order mark and final newline are removed",
    )
    parser.add_argument(
        "--max-tokens",
        type=count,
        default=128,
        metavar="N",
        help="most tokens to generate for each prompt (default: %(default)s)",
    )
    parser.add_argument(
        "--stop",
        action="append",
        default=[],
        metavar="TEXT",
        help="string that ends a text, which does not hold it; repeat the flag for several",
    )
    parser.add_argument(
        "--samples",
        type=count_up_to(1024),
        default=1,
        metavar="N",
        help="texts for each prompt, each with a seed of its own (default: %(default)s)",
    )
    _add_sampling(parser)
    _add_form(parser)
    parser.add_argument(
        "--beams",
        type=count,
        metavar="N",
        help="beam search with N beams in place of sampling; takes one prompt",
    )
    parser.add_argument(
        "--log-probs",
        nargs="?",
        type=top_count,
        const=0,
        metavar="K",
        help=f"in the JSON, the log-probability of each token, and the K most likely tokens, at "
        f"most {MOST_TOP} (without a number: 0)",
    )
    add_draft_arguments(parser)
    add_tensor_argument(parser)
    parser.add_argument("--keep", action="store_true", help="keep the samples in RUN for `report`")


def _add_sampling(parser: argparse.ArgumentParser) -> None:
    """How the next token is chosen."""
    parser.add_argument(
        "--temperature",
        type=float,
        default=0.8,
        metavar="T",
        help="the logits are divided by T; 0 is greedy decoding (default: %(default)s)",
    )
    parser.add_argument("--top-k", type=int, metavar="K", help="only the K most likely tokens")
    parser.add_argument(
        "--top-p",
        type=float,
        metavar="P",
        help="nucleus sampling: the smallest set of tokens with total probability P",
    )
    parser.add_argument(
        "--min-p",
        type=float,
        metavar="P",
        help="only tokens at least P times as likely as the most likely one",
    )
    parser.add_argument(
        "--repetition-penalty",
        type=float,
        metavar="R",
        help="logits of tokens of the prompt and the text so far are divided by R, or multiplied "
        "if negative; 0.01 to 100 (default: 1, off)",
    )
    parser.add_argument(
        "--presence-penalty",
        type=float,
        metavar="P",
        help="subtracted from the logits of tokens of the text so far; -2 to 2 (default: 0)",
    )
    parser.add_argument(
        "--frequency-penalty",
        type=float,
        metavar="P",
        help="subtracted for each time that the text so far has the token; -2 to 2 (default: 0)",
    )
    parser.add_argument(
        "--logit-bias",
        type=bias,
        action="append",
        default=[],
        metavar="ID=VALUE",
        help="-100 to 100, added to the logit of a token; repeat the flag for several",
    )
    parser.add_argument(
        "--seed", type=seed, default=0, help="seed of the sampling (default: %(default)s)"
    )


def _add_form(parser: argparse.ArgumentParser) -> None:
    """The form that texts must have."""
    form = parser.add_mutually_exclusive_group()
    form.add_argument(
        "--schema", type=Path, metavar="FILE", help="texts are JSON, valid under this JSON Schema"
    )
    form.add_argument(
        "--regex", metavar="PATTERN", help="texts match it whole; syntax of Rust's regex"
    )
    form.add_argument(
        "--grammar", type=Path, metavar="FILE", help="texts are derived by this Lark grammar"
    )


def bias(text: str) -> tuple[int, float]:
    """A token id, and what is added to its logit."""
    token, _, value = text.partition("=")
    if not (token.isascii() and token.isdecimal() and len(token) < 10 and value):
        raise argparse.ArgumentTypeError(f"{text!r} is not ID=VALUE, such as 42=-100")
    return int(token), number(value)


def top_count(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 3 and int(text) <= MOST_TOP):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to {MOST_TOP}")
    return int(text)


def run(args: argparse.Namespace) -> dict[str, Any]:
    from llm_jax.commands.generate_asked import asked_for
    from llm_jax.commands.generate_targets import targets
    from llm_jax.commands.generate_texts import beams, texts
    from llm_jax.infer.device_split import Split, described, sizes
    from llm_jax.infer.generator import slots_for
    from llm_jax.language_model import load_described

    asked = asked_for(args)
    for note in asked.notes:
        print(note, file=sys.stderr)
    split = Split(args.tensor, slots_for(1 if args.beams else asked.texts))
    trust: dict[str, Any] = {"verify": not args.no_verify, "trust_code": args.trust_code}
    model = load_described(asked.model, split=split, **trust)
    if isinstance(model.config, SourceToTarget):
        result = targets(args, model, asked.prompts)
    elif args.beams:
        result = beams(args, model, asked)
    else:
        result = texts(args, model, asked, split)
    if model.mesh is not None:
        result["split"] = sizes(model.mesh)
        print(described(model.mesh), file=sys.stderr)
    if args.keep:
        assert model.step is not None
        folder = asked.model.place.folder
        kept = keep_samples(folder, model.step, asked.how, result["samples"])
        result["kept"] = str(kept)
    return result


def text(result: dict[str, Any]) -> str:
    """The samples, unless they were streamed, and the speed."""
    lines = []
    if not result.pop("streamed"):
        for sample in result["samples"]:
            end = " ⏹" if sample["stopped"] else ""
            lines.append(f"{sample['prompt']}{sample['text']}{end}")
    if result["tokens_per_second"] is not None:
        drafts = ""
        if "speculation" in result:
            counted = result["speculation"]
            drafts = f"; {counted['accepted']:,} of {counted['drafted']:,} drafted tokens accepted"
            drafts += "" if counted["rate"] is None else f" ({counted['rate']:.0%})"
        lines.append(
            f"[{result['tokens']:,} tokens, {result['tokens_per_second']:,.1f} tokens/s after "
            f"{result['compile_seconds']:.1f} s of compilation{drafts}]"
        )
    if unfinished := sum(not sample.get("complete", True) for sample in result["samples"]):
        lines.append(
            f"[{unfinished} of {len(result['samples'])} ended before the form was complete: a "
            "larger --max-tokens gives it room]"
        )
    if "kept" in result:
        lines.append(f"[kept in {result['kept']} for `llm-jax report`]")
    return "\n\n".join(lines)
