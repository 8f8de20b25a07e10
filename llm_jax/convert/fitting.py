"""The class of transformers that a model goes out as: the first that fits, or the user's choice."""

from __future__ import annotations

import dataclasses

from llm_jax.config import ModelConfig, UserError, nearest
from llm_jax.convert.equivalent import forms
from llm_jax.convert.families import FAMILIES, Family, as_exported, family_of


def fitting(config: ModelConfig, named: str | None = None) -> tuple[ModelConfig, Family]:
    """The model in the first of its `forms` that the class has, and the class.

    Args:
      named: a `model_type` of transformers, or the name of a class.

    Raises:
      UserError: no class has the model's options, or the one that is named has not: the message
        names the options.
    """
    if named is None:
        exported = as_exported(config)
        return exported, family_of(exported)
    family = _named(named)
    ways = [config, *forms(config)]
    for one in ways:
        if not family.misfits(one):
            return one, family
    wrong = min((family.misfits(one) for one in ways), key=len)
    stand = ", ".join(f"model.{name} ({_shown(config, name, v)})" for name, v in wrong.items())
    fits = [one.model_type for one in FAMILIES if _fits(config, one)]
    other = f"it can go out as {', '.join(fits)}" if fits else "no other class has them either"
    raise UserError(
        f"--as {named}: {family.architecture} does not compute what this model does, because of "
        f"{stand}: {other}."
    )


def _fits(config: ModelConfig, family: Family) -> bool:
    return any(not family.misfits(one) for one in forms(config))


def _named(name: str) -> Family:
    for family in FAMILIES:
        if name.lower() in (family.model_type, family.architecture.lower()):
            return family
    known = [word for one in FAMILIES for word in (one.model_type, one.architecture)]
    raise UserError(f"--as is {name!r}: {nearest(name, known)}")


def _shown(config: ModelConfig, name: str, value: object) -> object:
    known = {item.name for item in dataclasses.fields(config)}
    return repr(getattr(config, name)) if name in known else value
