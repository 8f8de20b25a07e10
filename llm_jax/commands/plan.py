"""Plan a training run from a compute budget: model, data, batch, mesh, time, money.

Give one budget: --flops, --usd, --chip-hours, or --deadline-hours with --chips; or give the run,
with --params and --tokens, and get its cost; or the --loss that it should reach. --compare puts
chips side by side. The plan is printed. --write also writes a run.json for `train` and
`preflight`, and --report an HTML page.

example: llm-jax plan --usd 100000 --chip v5p --report plan.html
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from llm_jax.commands import count, number
from llm_jax.commands.own_speed import calibrate, calibrated_text
from llm_jax.config import RunConfig, UserError, to_json
from llm_jax.config.extras import require_packages
from llm_jax.runs.files import write_texts
from llm_jax.runs.plan_file import PlanRecord, plan_file

if TYPE_CHECKING:
    from llm_jax.plan.plan import Plan

UNIT: dict[str, Literal["flops", "usd", "chip-hours"]] = {
    "flops": "flops",
    "usd": "usd",
    "chip_hours": "chip-hours",
    "deadline_hours": "chip-hours",
    "loss": "flops",
}
"""Budget flag → the planner's unit for it."""
DATA = "data/stdlib"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    budget = parser.add_argument_group("budget (one of; or both --params and --tokens)")
    budget.add_argument("--flops", type=number, help="training FLOPs, such as 1e22")
    budget.add_argument("--usd", type=number, help="US dollars")
    budget.add_argument("--chip-hours", type=number, help="chips × hours")
    budget.add_argument("--deadline-hours", type=number, help="hours of wall time; needs --chips")
    budget.add_argument("--loss", type=number, help="the cheapest run that the law says reaches "
                        "this loss, in nats per token")  # fmt: skip
    machine = parser.add_argument_group("machine")
    machine.add_argument("--chip", default="v5p", help="v4, v5e, v5p, v6e, tpu7x, a100, h100, "
                         "h200, b200, or local: this machine, measured (default: v5p)")  # fmt: skip
    machine.add_argument(
        "--chips", type=count, help="number of chips (default: chosen by the planner)"
    )
    machine.add_argument(
        "--compare", type=_chips, default=(), metavar="CHIPS", help="the same run on these chips "
        "too, such as v5e,v5p,h100"
    )  # fmt: skip
    machine.add_argument(
        "--calibrate", nargs="+", type=Path, default=[], metavar="RUN", help="learn the chip's "
        "speed from runs of yours on --chips chips; later plans use it"
    )  # fmt: skip
    machine.add_argument("--remeasure", action="store_true", help="measure `local` again")
    machine.add_argument(
        "--usd-per-hour", type=number, help="price per chip-hour (default: list price)"
    )
    machine.add_argument(
        "--spot-discount",
        type=number,
        default=0.0,
        help="share of the list price that spot machines save (default: 0)",
    )
    machine.add_argument(
        "--restart-overhead",
        type=number,
        help="share of time lost to restarts (default: 0.05; 0 for local)",
    )
    machine.add_argument("--watts", type=number, help="power per chip (default: as published)")
    machine.add_argument(
        "--pue",
        type=number,
        default=1.1,
        help="power usage effectiveness of the data centre (default: 1.1)",
    )
    machine.add_argument(
        "--carbon",
        type=number,
        default=0.48,
        help="kg CO2e per kWh (default: 0.48, the world in 2023)",
    )
    what = parser.add_argument_group("model and data")
    what.add_argument("--law", default="besiroglu-2024", help="scaling law, by name or file "
                      "(default: besiroglu-2024)")  # fmt: skip
    what.add_argument("--law-only", action="store_true", help="print only the law's optimum")
    what.add_argument("--family", help="llama, qwen, moe, gpt2 (default: the law file's, or llama)")
    what.add_argument("--params", type=number, help="fix the number of parameters, such as 7B")
    what.add_argument("--tokens", type=number, help="fix the number of training tokens, such as 1T")
    what.add_argument("--unique-tokens", type=number, help="tokens of text that exist; a run of "
                      "more tokens repeats them (default: the number in --data)")  # fmt: skip
    what.add_argument("--inference-tokens", type=number, default=0.0, help="tokens to serve "
                      "over the model's life, paid from the budget (default: 0)")  # fmt: skip
    serve = parser.add_argument_group("serving cost, with --inference-tokens")
    serve.add_argument("--serve-chip", help="chip that serves the model; served tokens are "
                       "weighted by its price and utilisation (default: not weighted)")  # fmt: skip
    serve.add_argument(
        "--serve-usd-per-hour",
        type=number,
        help="price per chip-hour for serving (default: list price)",
    )
    serve.add_argument("--prompt-share", type=number, default=0.5, help="share of prompts in the "
                       "served tokens (default: 0.5)")  # fmt: skip
    serve.add_argument("--prefill-mfu", type=number, default=0.5, help="MFU of the serving chip "
                       "while it reads prompts (default: 0.5)")  # fmt: skip
    serve.add_argument("--decode-mfu", type=number, default=0.01, help="MFU of the serving chip "
                       "while it generates (default: 0.01)")  # fmt: skip
    what.add_argument("--seq-len", type=count, help="tokens per sequence (default: the law file's, "
                      "or by size)")  # fmt: skip
    what.add_argument("--vocab-size", type=count, help="vocabulary size (default: that of "
                      "--data, of the law file, or of the family)")  # fmt: skip
    what.add_argument("--batch-tokens", type=number, help="tokens per step (default: by --rule)")
    what.add_argument(
        "--rule",
        help="rule for batch size and learning rate: step-law, deepseek, olmo, nanochat, small "
        "(default: the law file's, or step-law, or small below 5M parameters)",
    )
    out = parser.add_argument_group("output")
    out.add_argument("--write", type=Path, metavar="RUN.JSON", help="write the run's config here, "
        "and the prediction beside it")  # fmt: skip
    out.add_argument("--anyway", action="store_true", help="write a run although the plan says "
        "that it is not worth its budget")  # fmt: skip
    out.add_argument("--report", type=Path, metavar="PLAN.HTML", help="write a self-contained page")
    out.add_argument(
        "--verify", action="store_true", help="compile the plan's train step for its TPUs"
    )
    out.add_argument("--name", default="planned", help="name of the run (default: planned)")
    out.add_argument("--data", help="dataset folder; if it exists, the plan uses its vocabulary "
                     f"and number of tokens (default: {DATA}, not read)")  # fmt: skip
    out.add_argument("--out", help="folder of the run in RUN.JSON (default: runs/NAME)")


def _chips(text: str):
    from llm_jax.facts.hardware import chip

    try:
        return tuple(chip(name) for name in text.split(","))
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def run(args: argparse.Namespace) -> dict[str, Any]:
    if args.calibrate:
        return calibrate(args)
    if args.law_only:
        return _law_only(args)
    made, found, config, record = planned(args)
    texts: dict[Path, str] = {}
    if args.write:
        if made.limits and not args.anyway:
            raise UserError(f"{' '.join(made.limits)} Give --anyway to write this run.")
        beside = plan_file(args.write)
        found |= {"written": str(args.write), "prediction": str(beside)}
        texts |= {args.write: to_json(config), beside: to_json(record)}
    if args.report:
        from llm_jax.report.plan_page import page

        if args.report in texts:
            raise UserError(
                f"--report is {str(args.report)!r}, which --write writes: choose another file."
            )
        texts[args.report] = page(made, found)
        found["report"] = str(args.report)
    write_texts(texts)
    return found


def planned(args: argparse.Namespace) -> tuple[Plan, dict[str, Any], RunConfig, PlanRecord]:
    """The plan that the flags ask for, its figures, its run, and its prediction."""
    from llm_jax.plan.compare import compared
    from llm_jax.plan.output import prediction, result
    from llm_jax.plan.planner import plan
    from llm_jax.plan.run_config import run_config

    if args.verify:
        require_packages("--verify", "libtpu")
    text = _text(args.data) if args.data else None
    request = _request(args, text)
    made = plan(request)
    found = result(made)
    if args.compare:
        others = [one for one in args.compare if one.name != made.request.chip.name]
        found["compare"] = compared(made, [made.request.chip, *others])
    recipe = request.recipe
    same = text is not None and recipe is not None and recipe.fingerprint == text.fingerprint
    law_text = recipe.text if recipe and not same else None
    if text and law_text:
        found["warnings"].append(
            f"The law was fitted on another dataset ({law_text}) than {args.data} "
            f"({text.name}): the sizes are a guess, and the loss is not a prediction. "
            "`llm-jax ladder --anchor` moves a law to a dataset, `ladder` alone fits one."
        )
    config = run_config(made, name=args.name, data=args.data or DATA, out=args.out)
    if args.verify:
        found["verified"] = _verify(config, made.execution.machine)
    return made, found, config, prediction(made, law_text)


def _law_only(args: argparse.Namespace) -> dict[str, Any]:
    """What the law says of a budget in FLOPs, without a machine."""
    from llm_jax.plan.planner import law_of, law_optimum
    from llm_jax.plan.request import check

    if args.flops is None:
        raise UserError("--law-only needs a budget in FLOPs: give --flops.")
    request = _request(args, _text(args.data) if args.data else None)
    check(request)
    best = law_optimum(request, request.amount)
    law = law_of(request)
    return {
        "optimum": dataclasses.asdict(best),
        "loss_interval": law.interval(best.params, best.tokens),
        "law": {"name": law.name, "source": law.source, "counts": law.counts},
        "warnings": law.warnings(best.params, best.tokens),
    }


def _verify(config, machine) -> dict[str, Any]:
    """The TPU compiler's figures for the plan, as `llm-jax preflight` gives them."""
    if not machine.chip.torus:
        raise UserError(
            f"--verify compiles for TPUs, not for {machine.chip.name}: choose a TPU with --chip."
        )
    os.environ.setdefault("JAX_PLATFORMS", "cpu")  # compiling uses no accelerator
    from llm_jax.preflight.cache import measured

    return measured(config, machine)


def _text(folder: str):
    """The dataset in `folder`, None if there is none yet."""
    from llm_jax.plan import dataset_text

    return dataset_text.read(folder) if Path(folder).exists() else None


def _request(args: argparse.Namespace, text):
    """The flags as a `Request`.

    Raises:
      UserError: there is not exactly one budget, or a deadline without chips.
    """
    from llm_jax.facts import hardware
    from llm_jax.laws import lawfile
    from llm_jax.laws.law import Parametric
    from llm_jax.plan.own_speed import own_speed
    from llm_jax.plan.request import Request, Serving, at_serving_price
    from llm_jax.plan.this_machine import local_chip

    given = [name for name in UNIT if getattr(args, name) is not None]
    flags = ["--" + name.replace("_", "-") for name in given]
    fixed = not given and args.params is not None and args.tokens is not None
    if len(given) != 1 and not fixed:
        said = f"{' and '.join(flags)} were given" if given else "none was given"
        raise UserError(
            f"A plan takes one budget, but {said}: choose one of --flops, --usd, --chip-hours, "
            "--deadline-hours with --chips, --loss, or both --params and --tokens."
        )
    local = args.chip == "local"
    chips = 1 if local and args.chips is None else args.chips
    amount = 6 * args.params * args.tokens if fixed else getattr(args, given[0])
    if not fixed and given[0] == "deadline_hours":
        if chips is None:
            raise UserError("--deadline-hours needs --chips: give the number of chips.")
        if not amount > 0:
            raise UserError(f"--deadline-hours is {amount:g}: it must be above 0.")
        amount *= chips
    overhead = args.restart_overhead
    unit = local_chip(args.remeasure) if local else hardware.chip(args.chip)
    law = lawfile.load(args.law)
    parametric = isinstance(law, Parametric)
    if args.loss is not None:
        amount = _flops_for(args.loss, law, args.inference_tokens)
    recipe = law.recipe if isinstance(law, Parametric) else None
    vocab_size = text.vocab_size if text else recipe.vocab_size if recipe else None
    request = Request(
        budget="flops" if fixed else UNIT[given[0]],
        fixed=fixed,
        amount=amount,
        chip=unit,
        speed=own_speed(unit),
        law=law,
        chips=chips,
        family=args.family or (recipe.family if recipe else "llama"),
        rule=args.rule or (recipe.rule if recipe else None),
        seq_len=args.seq_len or (recipe.seq_len if recipe else None),
        vocab_size=args.vocab_size or vocab_size,
        unique_tokens=args.unique_tokens or (text.tokens if text and parametric else None),
        restart_overhead=(0.0 if local else 0.05) if overhead is None else overhead,
        **{
            name: getattr(args, name)
            for name in (
                "params", "tokens", "inference_tokens", "batch_tokens", "usd_per_hour",
                "spot_discount", "watts", "pue", "carbon",
            )
        },
    )  # fmt: skip
    if args.serve_chip is None:
        return request
    serving = Serving(
        chip=hardware.chip(args.serve_chip),
        usd_per_hour=args.serve_usd_per_hour,
        prompt_share=args.prompt_share,
        prefill_mfu=args.prefill_mfu,
        decode_mfu=args.decode_mfu,
    )
    return at_serving_price(request, serving)


def _flops_for(loss: float, law: Any, inference_tokens: float) -> float:
    """The compute of the cheapest run that reaches `loss`, serving included."""
    from llm_jax.laws.law import Parametric
    from llm_jax.plan.objectives import cheapest_at_loss

    if not isinstance(law, Parametric):
        raise UserError(f"--loss needs a law that predicts losses, and {law.name} does not.")
    best = cheapest_at_loss(law, loss, inference_tokens)
    return 6 * best.params * best.tokens + 2 * best.params * inference_tokens


def text(result: dict[str, Any]) -> str:
    from llm_jax.report.plan_table import law_table, plan_table

    if "calibrated" in result:
        return calibrated_text(result)
    if "params" not in result:
        return law_table(result)
    if "verified" not in result:
        return plan_table(result)
    from llm_jax.preflight.table import lines

    return "\n".join([plan_table(result), "", *lines(result["verified"])])
