"""Continue prompts with a run's model.

  llm-jax generate runs/quickstart --prompt "def main(" --max-tokens 100
  llm-jax generate runs/quickstart --prompt "The" --prompt "A" --temperature 0.8 --top-p 0.95
  llm-jax generate runs/quickstart --prompt-file start.txt --beams 4

Without a prompt, it starts a new document. The text of a single prompt streams to the terminal.
Filters apply in the order temperature, top-k, top-p, min-p. A prompt of an encoder-decoder is its
source, whose target is made with --temperature 0 or by beams.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from llm_jax.commands import add_checkpoint_arguments, add_tensor_argument, count, seed
from llm_jax.config import SourceToTarget, UserError, generative_of, read_text
from llm_jax.runs.kept import keep_samples

COMPILES = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="folder of the run")
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
        "--seed", type=seed, default=0, help="seed of the sampling (default: %(default)s)"
    )
    parser.add_argument(
        "--beams",
        type=count,
        metavar="N",
        help="beam search with N beams in place of sampling; takes one prompt",
    )
    add_tensor_argument(parser)
    parser.add_argument("--keep", action="store_true", help="keep the samples in RUN for `report`")


def run(args: argparse.Namespace) -> dict[str, Any]:
    from llm_jax.commands.generate_targets import targets
    from llm_jax.convert.kept_files import stop_ids
    from llm_jax.infer.decoder import Decoder, compute_for_inference, prepared
    from llm_jax.infer.device_split import Split, described, sizes
    from llm_jax.infer.generator import slots_for
    from llm_jax.infer.sampling import GREEDY, Sampling
    from llm_jax.train.load import load_run

    sampling = Sampling(
        temperature=args.temperature, top_k=args.top_k, top_p=args.top_p, min_p=args.min_p
    )
    prompts = _prompts(args)
    if not 0 <= args.seed < 2**32:
        raise UserError(f"--seed is {args.seed}: give a number from 0 to {2**32 - 1}.")
    if args.beams and len(prompts) > 1:
        raise UserError(f"--beams takes one prompt, not {len(prompts)}: give them one by one.")
    split = Split(args.tensor, slots_for(1 if args.beams else len(prompts)))
    trained = load_run(
        args.run,
        args.step,
        verify=not args.no_verify,
        trust_code=args.trust_code,
        where=split.places,
    )
    tokenizer = trained.tokenizer
    if args.beams and args.beams > tokenizer.vocab_size:
        raise UserError(
            f"--beams is {args.beams}, more than the {tokenizer.vocab_size} tokens of the "
            "vocabulary: give fewer."
        )
    stops = stop_ids(Path(args.run), tokenizer)
    if isinstance(trained.config.model, SourceToTarget):
        result = targets(args, trained, trained.config.model, prompts, stops)
        return _kept(args, trained.step, result)
    model = generative_of(trained.config.model, "generate")
    compute = compute_for_inference(trained.config.compute)
    decoder = Decoder(
        model,
        compute,
        GREEDY if args.beams else sampling,
        tokenizer.vocab_size,
        stops,
    )
    params, mesh = prepared(trained.params, model, compute), split.mesh(trained.config)
    if args.beams:
        result = _beams(args, params, decoder, prompts[0], tokenizer)
    else:
        result = _sample(args, params, decoder, prompts, tokenizer, mesh)
    if mesh is not None:
        result["split"] = sizes(mesh)
        print(described(mesh), file=sys.stderr)
    return _kept(args, trained.step, result)


def _kept(args: argparse.Namespace, step: int, result: dict[str, Any]) -> dict[str, Any]:
    """`result`, whose samples are kept in the run if that is asked for."""
    if args.keep:
        kept = keep_samples(Path(args.run), step, _how(args), result["samples"])
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
        lines.append(
            f"[{result['tokens']:,} tokens, {result['tokens_per_second']:,.1f} tokens/s after "
            f"{result['compile_seconds']:.1f} s of compilation]"
        )
    if "kept" in result:
        lines.append(f"[kept in {result['kept']} for `llm-jax report`]")
    return "\n\n".join(lines)


def _how(args: argparse.Namespace) -> str:
    """How the samples are drawn, in words."""
    if args.beams:
        return f"{args.beams} beams"
    if args.temperature == 0:
        return "greedy"
    filters = {"temperature": args.temperature, "top-k": args.top_k, "top-p": args.top_p,
               "min-p": args.min_p, "seed": args.seed}  # fmt: skip
    return ", ".join(f"{name} {value:g}" for name, value in filters.items() if value is not None)


def _prompts(args: argparse.Namespace) -> list[str]:
    prompts = list(args.prompt)
    if args.prompt_file:
        prompts.append(_file_prompt(args.prompt_file))
    return prompts or [""]


def _file_prompt(path: Path) -> str:
    """The prompt in a file. Line ends become \\n, as in cleaned documents. The final newline, which
    editors add, is removed."""
    try:
        text = read_text(path)
    except UserError as error:
        raise UserError(f"--prompt-file {error}") from None
    return text.replace("\r\n", "\n").replace("\r", "\n").removesuffix("\n")


def _sample(
    args: argparse.Namespace,
    params: Any,
    decoder: Any,
    prompts: list[str],
    tokenizer: Any,
    mesh: Any,
) -> dict[str, Any]:
    from llm_jax.infer.decoder import check_room
    from llm_jax.infer.generator import engine_for
    from llm_jax.infer.streamed_text import generate_texts

    ids = [[tokenizer.bos_id, *tokenizer.encode(prompt)] for prompt in prompts]
    longest = max(map(len, ids))
    check_room(decoder.model, longest, args.max_tokens)
    engine = engine_for(params, decoder, len(ids), longest + args.max_tokens, mesh)
    live = len(prompts) == 1 and not args.json and sys.stdout.isatty()

    def show(new: str) -> None:
        if live:
            print(new, end="", flush=True)

    show(prompts[0])
    texts, made = generate_texts(
        engine,
        decoder,
        tokenizer,
        ids,
        max_tokens=args.max_tokens,
        seed=args.seed,
        on_text=show,
    )
    show("\n")
    samples = [
        {"prompt": prompt, "text": new, "ids": row, "stopped": stopped}
        for prompt, new, row, stopped in zip(prompts, texts, made.ids, made.stopped, strict=True)
    ]
    result = {
        "text": texts[0],
        "tokens": sum(map(len, made.ids)),
        "tokens_per_second": made.tokens_per_second,
        "compile_seconds": made.compile_seconds,
        "prefill_seconds": made.prefill_seconds,
        "samples": samples,
    }
    return result if args.json else {**result, "streamed": live}


def _beams(
    args: argparse.Namespace, params: Any, decoder: Any, prompt: str, tokenizer: Any
) -> dict[str, Any]:
    from llm_jax.infer.beam import beam_search
    from llm_jax.infer.streamed_text import TextStream

    ids = [tokenizer.bos_id, *tokenizer.encode(prompt)]
    found, stopped, logp = beam_search(
        params, decoder, ids, beams=args.beams, max_tokens=args.max_tokens
    )
    stream = TextStream(tokenizer)
    made = stream.feed(found) + stream.end()
    sample = {"prompt": prompt, "text": made, "ids": found, "stopped": stopped, "log_prob": logp}
    result = {"text": made, "tokens": len(found), "tokens_per_second": None, "samples": [sample]}
    return result if args.json else {**result, "streamed": False}
