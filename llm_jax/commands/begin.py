"""The config of a run that begins with another one's weights, or goes on as its branch.

Batch, optimizer and length of sequences are those of the other run where neither CONFIG nor a flag
says anything else. Without CONFIG, everything is.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from llm_jax.commands.overrides import is_flag, override
from llm_jax.config import (
    INFO_FILE,
    DataConfig,
    EncoderConfig,
    MixtureConfig,
    ModernEncoderConfig,
    OptimConfig,
    RunConfig,
    UserError,
    json_file,
    read_config,
    read_dataset_info,
    read_json,
    require_shape,
)
from llm_jax.config.heads import LABELLED

KEPT = (("data", "batch_size"), ("data", "seq_len"), ("optim", "kind"))
"""Fields of a run that a run from its weights keeps."""
DEFAULTS: dict[str, Any] = {
    f"{part}.{field.name}": field.default
    for part, cls in (("data", DataConfig), ("optim", OptimConfig))
    for field in fields(cls)
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_other_run(parser)
    parser.add_argument(
        "--mixture", metavar="FILE", help="read this mixture, such as `data mix --write` makes it"
    )


def add_other_run(parser: argparse.ArgumentParser) -> None:
    """The flags that name the run which a new run begins with."""
    parser.add_argument(
        "--init",
        "--init-from",
        metavar="RUN[@STEP]",
        help="start with the weights of this run, with a fresh optimizer and schedule (default: "
        "random weights)",
    )
    parser.add_argument(
        "--branch",
        metavar="RUN[@STEP]",
        help="go on from this run with everything, under another name and `out`",
    )


def config_of(args: argparse.Namespace) -> RunConfig:
    """The config that CONFIG, --init or --branch, --mixture and the flags give together.

    Raises:
      UserError, ConfigError: they contradict each other, or name what does not exist.
    """
    if args.init and args.branch:
        raise UserError(
            "--init begins with weights alone and --branch goes on with everything: give one."
        )
    other = args.init or args.branch
    given = _given(args.overrides)
    reference = args.config or (str(_folder(other)) if other else None)
    config = override(reference, args.overrides, verb="train", own=args.flags)
    if other and args.config is None:
        config = _under_another_name(config, str(reference), given)
    elif other:
        theirs = read_config(_folder(other) / "run.json", RunConfig)
        config = keeping(config, args.config, other, theirs, args.overrides)
    if args.mixture:
        if "--data.path" in given:
            raise UserError("--mixture and --data.path both say what is read: give one of them.")
        mixture = read_config(args.mixture, MixtureConfig, "data.mixture")
        config = replace(config, data=replace(config.data, path="", mixture=mixture))
    return _with_head(config, given)


def _with_head(config: RunConfig, given: set[str]) -> RunConfig:
    """`config` with the head, the labels and the length of its dataset's labelled examples, if it
    is that of an encoder which predicts hidden tokens or has another head."""
    model, data = config.model, config.data
    if not data.path or not isinstance(model, EncoderConfig | ModernEncoderConfig):
        return config
    if not Path(data.path, INFO_FILE).is_file():
        return config
    examples = read_dataset_info(data.path).get("examples")
    if examples is None:
        return config
    require_shape(examples, {"kind": str, "length": int, "labels": [str]}, data.path)
    kind, labels, length = examples["kind"], tuple(examples["labels"]), examples["length"]
    if kind not in LABELLED:
        raise UserError(f"{data.path} holds examples of {kind!r}: choose {', '.join(LABELLED)}.")
    if (model.head, model.labels) != (kind, labels):
        named = f" of {len(labels)} labels" if labels else ""
        print(f"As in {data.path}: the head {kind!r}{named}.", file=sys.stderr)
        if isinstance(model, EncoderConfig):
            model = replace(model, head=kind, labels=labels, next_sentence=False)
        else:
            model = replace(model, head=kind, labels=labels)
    if "--data.seq-len" not in given and data.seq_len != length:
        print(f"As in {data.path}: data.seq_len {length}.", file=sys.stderr)
        data = replace(data, seq_len=length)
    return replace(config, model=model, data=data, objective=kind)


def _folder(place: str) -> Path:
    """The run folder of `RUN`, `RUN@STEP` or `RUN/checkpoints/STEP`."""
    from llm_jax.runs.places import folder_and_step

    folder, _ = folder_and_step(place)
    if not (folder / "run.json").is_file():
        raise UserError(
            f"There is no run in {str(folder)!r}: give the folder of a run, or a CONFIG."
        )
    return folder


def _under_another_name(config: RunConfig, folder: str, given: set[str]) -> RunConfig:
    require_another_folder(config.out if "--out" in given else None, folder)
    return config if "--name" in given else replace(config, name=Path(config.out).name)


def require_another_folder(out: str | None, folder: str) -> None:
    """Raises `UserError` unless a run with the config of the run in `folder` has an `out` of its
    own."""
    if out is None or os.path.realpath(out) == os.path.realpath(folder):
        raise UserError(
            f"The config is that of {folder}: name another folder for the new run with --out."
        )


def keeping(
    config: RunConfig, reference: str, other: str, theirs: RunConfig, overrides: list[str]
) -> RunConfig:
    """`config` with the fields of `KEPT` as the run `other` has them, where nothing else is said.

    A JSON file says what it names, a recipe what is not the default.

    Args:
      reference: CONFIG.
      theirs: the config of `other`.
      overrides: the flags of fields.
    """
    given = _given(overrides)
    file = json_file(reference)
    raw = read_json(file) if file else None
    kept: dict[str, dict[str, Any]] = {"data": {}, "optim": {}, "compute": {}}
    for part, name in KEPT:
        ours, value = getattr(getattr(config, part), name), getattr(getattr(theirs, part), name)
        flag = f"--{part}.{name}".replace("_", "-")
        said = name in raw.get(part, {}) if raw else ours != DEFAULTS[f"{part}.{name}"]
        if not said and flag not in given and ours != value:
            kept[part][name] = value
    if "batch_size" in kept["data"] and "--compute.accumulate" not in given:
        kept["compute"]["accumulate"] = theirs.compute.accumulate
    for part, values in kept.items():
        config = replace(config, **{part: replace(getattr(config, part), **values)})
    words = [f"{part}.{name} {v!r}" for part, held in kept.items() for name, v in held.items()]
    if words:
        print(f"As in {other}: {', '.join(words)}.", file=sys.stderr)
    return config


def _given(overrides: list[str]) -> set[str]:
    return {word.split("=")[0].replace("_", "-") for word in overrides if is_flag(word)}
