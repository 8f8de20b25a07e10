"""The mixture that a plan is for: from --mixture, or from the config that is given."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from llm_jax.config import MixtureConfig, RunConfig, UserError, read_config, read_dataset_info

if TYPE_CHECKING:
    from llm_jax.plan.dataset_text import Text
    from llm_jax.plan.given import Given
    from llm_jax.plan.limited_text import Source


def mixture_of(args: argparse.Namespace, given: Given | None) -> MixtureConfig | None:
    """The mixture of the run to plan; None if it reads one dataset.

    Raises:
      UserError: --data and --mixture are both given, or the file is not a mixture.
    """
    if args.mixture and args.data:
        raise UserError("--mixture and --data both say what is read: give one of them.")
    if args.mixture:
        return read_config(args.mixture, MixtureConfig, "data.mixture")
    return given.run.data.mixture if given and given.run and not args.data else None


def text_of_mixture(path: str) -> Text:
    """The text of the mixture in the file `path`.

    Raises:
      UserError: it is not a mixture, has amounts other than weights, or a dataset is missing.
    """
    from llm_jax.plan.dataset_text import read_mixture

    mixture = read_config(path, MixtureConfig, "data.mixture")
    shares = dict(zip(mixture.names, _by_weight(mixture), strict=True))
    return read_mixture(path, mixture, shares)


def with_mixture(config: RunConfig, mixture: MixtureConfig | None) -> RunConfig:
    """`config` reading `mixture`, if there is one."""
    if mixture is None:
        return config
    return replace(config, data=replace(config.data, path="", mixture=mixture))


def sources_of(args: argparse.Namespace, given: Given | None) -> tuple[Source, ...]:
    """The unique tokens of each source of the mixture, and its share of the run; empty if there is
    none, or its datasets are not on this machine, which is said."""
    from llm_jax.data.mixture import run_shares
    from llm_jax.plan.limited_text import Source

    mixture = mixture_of(args, given)
    if mixture is None:
        return ()
    try:
        infos = [read_dataset_info(source.path) for source in mixture.sources]
    except UserError as error:
        if args.mixture:
            raise
        print(f"note: sources do not limit the plan: {error}", file=sys.stderr)
        return ()
    sizes = [info["splits"]["train"]["tokens"] for info in infos]
    if given and given.run and given.run.data.mixture == mixture:
        shares = run_shares(given.run.data, given.run.steps, sizes)
    else:
        shares = _by_weight(mixture)
    return tuple(
        Source(name=name, unique=float(size), share=share)
        for name, size, share in zip(mixture.names, sizes, shares, strict=True)
        if share > 0
    )


def _by_weight(mixture: MixtureConfig) -> list[float]:
    """The share of each source in a run whose steps have one size, from its weights."""
    shares = dict.fromkeys(mixture.names, 0.0)
    ends = [stage.start for stage in mixture.stages[1:]] + [1.0]
    for stage, end in zip(mixture.stages, ends, strict=True):
        weights = {amount.source: amount.weight for amount in stage.read}
        if None in weights.values():
            raise UserError(
                "--mixture has tokens or epochs, whose shares depend on the run: give weights, or "
                "plan the --config of a run."
            )
        total = sum(weight or 0.0 for weight in weights.values())
        for name, weight in weights.items():
            shares[name] += (end - stage.start) * (weight or 0.0) / total
    return [*shares.values()]
