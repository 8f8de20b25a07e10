"""Plan a training run from a compute budget: model, data, batch, mesh, time, money.

Give one budget: --flops, --usd, --chip-hours, or --deadline with --chips; or the run itself, with
--tokens and --params, --config or --from; or the --loss that it should reach. A budget low:high
draws what the budgets between buy. --compare puts chips side by side. The plan is printed. --write
also writes a run.json for `train` and `preflight`, and --report an HTML page.

example: llm-jax plan --usd 100000 --chip v5p --report plan.html
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_jax.commands.own_speed import calibrate, calibrated_text
from llm_jax.commands.plan_flags import DATA, add_arguments
from llm_jax.commands.plan_mixture import mixture_of, with_mixture
from llm_jax.commands.plan_request import budget_of, curve_of, request_of, text_of
from llm_jax.config import RunConfig, UserError, to_json
from llm_jax.config.extras import require_packages
from llm_jax.runs.files import write_texts
from llm_jax.runs.plan_file import PlanRecord, plan_file

if TYPE_CHECKING:
    from llm_jax.plan.plan import Plan

__all__ = ["add_arguments", "planned", "run", "text"]


def run(args: argparse.Namespace) -> dict[str, Any]:
    if args.calibrate:
        return calibrate(args, args.calibrate)
    if args.law_only:
        return _law_only(args)
    budget = budget_of(args)
    if budget and isinstance(getattr(args, budget), tuple):
        return _curve(args, budget)
    made, found, config, record = planned(args)
    texts: dict[Path, str] = {}
    if args.write:
        if made.limits and not args.anyway:
            raise UserError(f"{' '.join(made.limits)} Give --anyway to write this run.")
        beside = plan_file(args.write)
        found |= {"written": str(args.write), "prediction": str(beside), "out": config.out}
        texts |= {args.write: to_json(config), beside: to_json(record)}
        if args.extend:
            texts |= _written_extension(args, made, found)
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
    if (args.extend is None) != (args.extend_tokens is None):
        raise UserError("--extend and --extend-tokens are one stage: give both or neither.")
    budget = budget_of(args)
    if budget and isinstance(getattr(args, budget), tuple):
        raise UserError("A range of budgets has several runs: give one budget.")
    text = text_of(args)
    request = request_of(args, text, budget)
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
            f"The law was fitted on another dataset ({law_text}) than "
            f"{args.mixture or f'{args.data} ({text.name})'}: the sizes are a guess, and the loss "
            "is not a prediction. "
            "`llm-jax ladder --anchor` moves a law to a dataset, `ladder` alone fits one."
        )
    if args.extend:
        from llm_jax.plan.extension import second_stage, stage_result

        found["extend"] = stage_result(made, second_stage(made, args.extend, args.extend_tokens))
    config = run_config(made, name=args.name, data=_data(args, made), out=args.out)
    config = with_mixture(config, mixture_of(args, made.request.given))
    if args.verify:
        found["verified"] = _verify(config, made.execution.machine)
    return made, found, config, prediction(made, law_text)


def _data(args: argparse.Namespace, made: Plan) -> str:
    """The dataset of the run: that of --data, or of the config that is given."""
    given = made.request.given
    return args.data or (given.run.data.path if given and given.run else "") or DATA


def _written_extension(
    args: argparse.Namespace, made: Plan, found: dict[str, Any]
) -> dict[Path, str]:
    """The run of the second stage and its prediction, beside the first run's."""
    from llm_jax.plan.extension import second_stage
    from llm_jax.plan.output import prediction
    from llm_jax.plan.run_config import run_config

    stage = second_stage(made, args.extend, args.extend_tokens)
    out = f"{args.out or f'runs/{args.name}'}-extend"
    config = run_config(stage, name=f"{args.name}-extend", data=_data(args, made), out=out)
    config = with_mixture(config, mixture_of(args, made.request.given))
    path = args.write.with_name(f"{args.write.stem}-extend.json")
    found["extend"]["written"] = str(path)
    return {path: to_json(config), plan_file(path): to_json(prediction(stage))}


def _curve(args: argparse.Namespace, budget: str) -> dict[str, Any]:
    """What each budget of a range buys."""
    from llm_jax.plan.curve import curve
    from llm_jax.plan.output import price
    from llm_jax.plan.sentences import price_warnings

    for flag in ("write", "compare", "verify", "extend"):
        if getattr(args, flag):
            raise UserError(f"--{flag} is for one run, and a range of budgets has several.")
    request = request_of(args, text_of(args), budget)
    requests = curve_of(args, request, budget)
    found: dict[str, Any] = {
        "unit": "hours" if budget == "deadline_hours" else budget.replace("_", "-"),
        "chip": request.chip.name,
        "price": price(request),
        "law": {"name": request.law.name, "source": request.law.source},
        "curve": curve(zip(getattr(args, budget), requests, strict=True)),
        "warnings": price_warnings(request),
    }
    if args.report:
        from llm_jax.report.curve_page import page

        write_texts({args.report: page(found)})
        found["report"] = str(args.report)
    return found


def _law_only(args: argparse.Namespace) -> dict[str, Any]:
    """What the law says of a budget in FLOPs, without a machine."""
    from llm_jax.plan.planner import law_of, law_optimum
    from llm_jax.plan.request import check

    if not isinstance(args.flops, float):
        raise UserError("--law-only needs one budget in FLOPs: give --flops.")
    request = request_of(args, text_of(args), budget_of(args))
    check(request)
    best = law_optimum(request, request.amount)
    law = law_of(request)
    return {
        "optimum": dataclasses.asdict(best),
        "loss_interval": law.interval(best.params, best.tokens),
        "law": {"name": law.name, "source": law.source, "counts": law.counts},
        "warnings": law.warnings(best.params, best.tokens),
    }


def _verify(config: RunConfig, machine: Any) -> dict[str, Any]:
    """The TPU compiler's figures for the plan, as `llm-jax preflight` gives them."""
    if not machine.chip.torus:
        raise UserError(
            f"--verify compiles for TPUs, not for {machine.chip.name}: choose a TPU with --chip."
        )
    os.environ.setdefault("JAX_PLATFORMS", "cpu")  # compiling uses no accelerator
    from llm_jax.preflight.cache import measured

    return measured(config, machine)


def text(result: dict[str, Any]) -> str:
    from llm_jax.report.plan_table import law_table, plan_table

    if "calibrated" in result:
        return calibrated_text(result)
    if "curve" in result:
        from llm_jax.report.curve_table import curve_table

        return curve_table(result)
    if "params" not in result:
        return law_table(result)
    if "verified" not in result:
        return plan_table(result)
    from llm_jax.preflight.table import lines

    return "\n".join([plan_table(result), "", *lines(result["verified"])])
