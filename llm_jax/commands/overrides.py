"""A config from a reference and flags: `--field value` for every scalar field, through tyro."""

from __future__ import annotations

import contextlib
import io
import itertools
import sys

from llm_jax.config import RunConfig, UserError, load, nearest, to_dict


def override(reference: str | None, flags: list[str], *, verb: str, about: str) -> RunConfig:
    """The config `reference` names, with `flags` such as `--optim.learning-rate 1e-3` applied.

    `--help` prints every field with this recipe's value and exits.

    Raises:
      UserError: no config named, an unknown flag (the nearest is suggested), or a bad value.
      ConfigError: the config that results is invalid.
    """
    asks_help = any(flag in ("-h", "--help") for flag in flags)
    if reference is None:
        if asks_help:
            print(f"usage: llm-jax {verb} CONFIG [--field value ...]\n\n{about}")
            print(f"`llm-jax {verb} CONFIG --help` shows the fields with their values.")
            sys.exit(0)
        raise UserError(f"llm-jax {verb} needs a CONFIG: a recipe's name or a run.json.")
    config = load(reference)
    if not flags:
        return config
    import tyro

    known = _flag_names(to_dict(config))
    for flag in flags:
        name = flag.split("=")[0].replace("_", "-")
        if name.startswith("--") and name != "--help" and name not in known:
            raise UserError(f"llm-jax {verb} has no flag {flag!r}: {nearest(name, known)}")
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(
                RunConfig,
                prog=f"llm-jax {verb} {reference}",
                description=about,
                default=config,
                args=flags,
                config=(tyro.conf.AvoidSubcommands, tyro.conf.FlagConversionOff),
            )
    except SystemExit as end:
        if asks_help and not end.code:
            raise
    raise UserError(f"{_sentence(said.getvalue())} See llm-jax {verb} {reference} --help.")


def _sentence(box: str) -> str:
    """What tyro says in its frame: the rows between the title and the rule that follows them."""
    rows = [line.strip("│ ") for line in box.splitlines()[1:]]
    start = 1 if rows and not rows[0].strip("-") else 0  # without Unicode, a rule under the title
    said = " ".join(itertools.takewhile(lambda row: row.strip("─-"), rows[start:]))
    return said[:1].upper() + said[1:].rstrip(".") + "."


def _flag_names(tree: dict, prefix: str = "--") -> set[str]:
    names: set[str] = set()
    for key, value in tree.items():
        name = prefix + key.replace("_", "-")
        names |= _flag_names(value, name + ".") if isinstance(value, dict) else {name}
    return names
