"""`data mix --method regmix`: weights from short runs on random mixtures (Liu et al. 2024)."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_jax.commands.recorded_runs import runs_of, train
from llm_jax.config import (
    Amount,
    MixtureConfig,
    MixtureSource,
    MixtureStage,
    RunConfig,
    UserError,
    decoder_of,
    nearest,
)
from llm_jax.config.wording import counted
from llm_jax.runs.claim import only_writer

if TYPE_CHECKING:
    import numpy as np

EACH, LEAST = 8, 16
"""Proxies for each source, and at least, if --proxies is not given (docs/log.md)."""
LEAST_R2 = 0.5
"""Share of the variance that the fit must explain in runs it has not seen; random losses hardly
reach it (docs/log.md)."""
BEYOND = 0.02
"""A proposed weight this much above that in all proxies is marked."""
SEED = 0
FLAGS = ("flops", "minutes", "chip", "seq_len", "proxies", "target", "out")
"""Those of the proxies."""
DEFAULTS: dict[str, Any] = {"chip": "local", "seq_len": 512, "out": Path("regmix")}
Folders = Mapping[str, str]


def mixture_of(folders: Folders, weights: Mapping[str, float]) -> MixtureConfig:
    """The sources in `folders`, in one stage of these weights."""
    return MixtureConfig(
        sources=tuple(MixtureSource(name=name, path=path) for name, path in folders.items()),
        stages=(MixtureStage(read=tuple(Amount(source=n, weight=w) for n, w in weights.items())),),
    )


def weights_by_proxies(
    args: argparse.Namespace, folders: Folders, infos: Mapping[str, dict[str, Any]]
) -> tuple[dict[str, float], dict[str, Any]]:
    """The weights that RegMix proposes, and how it came to them. Trains the proxies that are not
    there yet in --out.

    Raises:
      UserError: flags contradict each other, a run failed, or the fit explains nothing.
    """
    from llm_jax.data.random_mixtures import Around

    asked = DEFAULTS | {name: v for name in FLAGS if (v := getattr(args, name)) is not None}
    sizes = {name: info["splits"]["train"]["tokens"] for name, info in infos.items()}
    _check(args, sizes)
    count = asked.get("proxies") or max(EACH * len(sizes), LEAST)
    around, out = Around(sizes, args.tokens, args.max_epochs), asked["out"]
    drawn = around.series(SEED, count).tolist()
    mixture_of(folders, dict(zip(sizes, drawn[0], strict=True)))  # names and paths are checked
    with only_writer(out, "llm-jax data mix"):
        settings, minutes = _settings(args, asked, infos, count), list[float]()
        planned = partial(_planned, args, asked, folders, infos, count, minutes)
        (base,) = runs_of(out, settings, planned, "regmix")
        configs = []
        for number, weights in enumerate(drawn):
            name = f"proxy-{number:03d}"
            read = mixture_of(folders, dict(zip(sizes, weights, strict=True)))
            data = replace(base.data, path="", mixture=read)
            configs.append(replace(base, name=name, out=str(out / name), data=data))
        _say_cost(configs, minutes)
        for place, config in enumerate(configs, 1):
            train(config, f"proxy {place} of {count}")
        return _proposal(configs, sizes, around, args.target)


def _check(args: argparse.Namespace, sizes: Mapping[str, int]) -> None:
    if len(sizes) < 2:
        raise UserError("--method regmix compares sources, and there is one: give two or more.")
    if (args.flops is None) == (args.minutes is None):
        raise UserError("--method regmix takes one budget: give --flops or --minutes.")
    if args.target is not None and args.target not in sizes:
        raise UserError(f"--target is {args.target!r}: {nearest(args.target, sizes)}")
    if args.proxies is not None and args.proxies < EACH:
        raise UserError(f"--proxies is {args.proxies}: a fit needs {EACH} or more.")


def _settings(
    args: argparse.Namespace,
    asked: Mapping[str, Any],
    infos: Mapping[str, dict[str, Any]],
    count: int,
) -> dict[str, Any]:
    """What proxies that are made are only reused with. The budget is that of one proxy, so that
    twice as many for twice the budget reuse the first half."""
    each = {name: v and v / count for name in ("flops", "minutes") for v in [getattr(args, name)]}
    return {
        **{f"{name} of a proxy": value for name, value in each.items()},
        "chip": asked["chip"],
        "seq_len": asked["seq_len"],
        "tokens": args.tokens,
        "max_epochs": args.max_epochs,
        "sources": {name: info["fingerprint"] for name, info in infos.items()},
    }


def _planned(
    args: argparse.Namespace,
    asked: Mapping[str, Any],
    folders: Folders,
    infos: Mapping[str, dict[str, Any]],
    count: int,
    minutes: list[float],
) -> list[RunConfig]:
    """The one config of all proxies, whatever they read; their `minutes` in all are added."""
    from llm_jax.plan.dataset_text import read
    from llm_jax.plan.ladder_runs import LadderRequest
    from llm_jax.plan.proxy_runs import plan_proxy
    from llm_jax.plan.this_machine import chip_named

    tokens = sum(info["splits"]["train"]["tokens"] for info in infos.values())
    text = replace(read(next(iter(folders.values()))), tokens=min(tokens, args.tokens))
    request = LadderRequest(
        text=text,
        chip=chip_named(asked["chip"]),
        flops=args.flops,
        minutes=args.minutes,
        seq_len=asked["seq_len"],
    )
    proxy = plan_proxy(request, count, len(folders))
    minutes.append(count * proxy.seconds / 60)
    return [replace(proxy.config, name="proxy")]


def _say_cost(configs: list[RunConfig], minutes: list[float]) -> None:
    from llm_jax.facts.counts import active_parameters, token_flops
    from llm_jax.report.outcome import finished

    left = [one for one in configs if not finished(Path(one.out), one.steps)]
    one = configs[0]
    model = decoder_of(one.model, "A proxy run")
    tokens = one.steps * one.batch_tokens
    flops = token_flops(model, one.data.seq_len).train * tokens * len(left)
    time = f", about {minutes[0]:.1f} minutes of training steps" if minutes else ""
    done = len(configs) - len(left)
    made = f"; {done} of {len(configs)} are made" if done else ""
    print(
        f"{counted(len(left), 'proxy run')} of {active_parameters(model):,} parameters on "
        f"{tokens:,} tokens, {flops:.3g} FLOPs{time}{made}.",
        file=sys.stderr,
        flush=True,
    )


def _proposal(
    configs: list[RunConfig], sizes: Mapping[str, int], around: Any, target: str | None
) -> tuple[dict[str, float], dict[str, Any]]:
    import numpy as np

    from llm_jax.data import mixture_fit

    names = [*sizes]
    weights, losses = _measured(configs, names, [*sizes.values()])
    columns = [names.index(target)] if target else [*range(len(names))]

    def of_target(found: np.ndarray) -> np.ndarray:
        return found[:, columns].mean(axis=1)

    predicted = mixture_fit.left_out(weights, losses)
    what = f"the loss on {target}" if target else "the mean of the sources' losses"
    quality = mixture_fit.explained(of_target(losses), of_target(predicted))
    if quality["r2"] < LEAST_R2:
        raise UserError(
            f"The fit to {len(configs)} proxies explains {max(quality['r2'], 0):.0%} of how "
            f"{what} varies in proxies that it has not seen, and at least {LEAST_R2:.0%} is "
            "needed: give more --proxies with as much more budget, or longer ones in another --out."
        )
    fits = mixture_fit.fit(weights, losses)

    def predict(mixtures: np.ndarray) -> np.ndarray:
        return of_target(np.stack([one(mixtures) for one in fits], axis=1))

    best = mixture_fit.proposed(around.many(SEED, mixture_fit.BEST), predict)
    natural = np.array([*sizes.values()]) / sum(sizes.values())
    return dict(zip(names, best.tolist(), strict=True)), {
        "target": target,
        "proxies": len(configs),
        "out": str(Path(configs[0].out).parent),
        "fit": quality,
        "fit_by_source": {
            name: {"form": fit.form} | mixture_fit.explained(losses[:, i], predicted[:, i])
            for i, (name, fit) in enumerate(zip(names, fits, strict=True))
        },
        "predicted_loss": float(predict(best[None])[0]),
        "predicted_proportional": float(predict(natural[None])[0]),
        "best_proxy": float(of_target(losses).min()),
        "beyond_proxies": [
            name for i, name in enumerate(names) if best[i] > weights[:, i].max() + BEYOND
        ],
    }


def _measured(
    configs: list[RunConfig], names: list[str], sizes: list[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Of each proxy the share of its sequences from each source, and the final loss on each."""
    import numpy as np

    from llm_jax.data.mixture import portions
    from llm_jax.laws.run_curves import records
    from llm_jax.runs.metric_names import LOSS_OF

    weights, losses = [], []
    for config in configs:
        rows = config.data.sequences(config.steps)
        (portion,) = portions(config.data, config.steps, sizes)
        weights.append(np.array(portion.blend.before(rows)) / rows)
        figures = [LOSS_OF + name for name in names]
        last = records(Path(config.out) / "metrics.jsonl", "validation", *figures)[-1]
        losses.append([last[figure] for figure in figures])
    return np.array(weights), np.array(losses, dtype=np.float64)


def lines(found: dict[str, Any]) -> list[str]:
    """`regmix` of a result for a person."""
    what = found["target"] or "the mean of all sources"
    made = [
        f"RegMix: {found['proxies']} proxies in {found['out']}; each is predicted by a fit to the "
        "others",
        f"  {'loss on':<24}  {'variance explained':>18}  {'error (nats)':>12}  {'rank':>5}",
    ]
    rows = {what: found["fit"]} | (found["fit_by_source"] if not found["target"] else {})
    for name, fit in rows.items():
        made.append(
            f"  {name:<24}  {max(fit['r2'], 0):>18.1%}  {fit['error']:>12.4f}  {fit['rank']:>5.2f}"
        )
    beyond = [
        f"The weight of {name} is higher than in any proxy, so its loss is extrapolated."
        for name in found["beyond_proxies"]
    ]
    return [
        *made,
        *beyond,
        f"A proxy on these weights is predicted to have {found['predicted_loss']:.4f} nats, on "
        f"weights in proportion to the sizes {found['predicted_proportional']:.4f}; the best proxy "
        f"had {found['best_proxy']:.4f}.",
    ]
