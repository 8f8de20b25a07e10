"""What a name in the config stands for: one of our own parts, or yours.

    optim.kind = "adamw"            one of ours
    optim.kind = "lion.py:lion"     the object `lion` in the Python file lion.py
    optim.kind = "my_lab.opt:lion"  the object `lion` in the installed module my_lab.opt
    optim.kind = "lion"             what an installed package registers as an entry point of the
                                    group `llm_jax.optimizers`

Reading a config runs no code. What it names is loaded where it is used.
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_jax.config.errors import ConfigError, require

if TYPE_CHECKING:
    from llm_jax.config.run import RunConfig

OPTIMIZERS: Mapping[str, str] = {
    "adamw": "llm_jax.train.optimizers.adamw:adamw",
    "muon": "llm_jax.train.optimizers.muon:muon",
    "adafactor": "llm_jax.train.optimizers.adafactor:adafactor",
    "schedule_free": "llm_jax.train.optimizers.schedule_free:schedule_free",
}
"""`optim.kind` → where it is."""
OBJECTIVES: Mapping[str, str] = {
    "next_token": "llm_jax.objectives.next_token:NEXT_TOKEN",
    "masked": "llm_jax.objectives.masked:masked",
    "spans": "llm_jax.objectives.spans:spans",
    "classify": "llm_jax.objectives.labels:classify",
    "tag": "llm_jax.objectives.labels:tag",
    "answer": "llm_jax.objectives.labels:answer",
    "embed": "llm_jax.objectives.sentence_pairs:embed",
    "negative_samples": "llm_jax.objectives.negative_samples:negative_samples",
}
"""`objective` → where it is."""
MODELS: Mapping[str, str] = {
    "decoder": "llm_jax.models.decoder.transformer:DECODER",
    "encoder": "llm_jax.models.encoder.bert:ENCODER",
    "recurrent": "llm_jax.models.recurrent.network:RECURRENT",
    "encoder_decoder": "llm_jax.models.encoder_decoder.t5:ENCODER_DECODER",
    "modern_encoder": "llm_jax.models.encoder.modern_bert:MODERN_ENCODER",
    "recurrent_encoder_decoder": (
        "llm_jax.models.recurrent.encoder_decoder:RECURRENT_ENCODER_DECODER"
    ),
    "transformer_encoder_decoder": ("llm_jax.models.encoder_decoder.transformer:TRANSFORMER"),
    "word2vec": "llm_jax.models.word2vec.vectors:WORD2VEC",
}
"""`model.kind` → where it is."""
SOURCES: Mapping[str, str] = {}
"""`--source` → where it is; our own sources have flags of their own."""
EVALUATIONS: Mapping[str, str] = {}
"""`--task` → where it is."""
GROUPS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "optim.kind": ("llm_jax.optimizers", OPTIMIZERS),
    "objective": ("llm_jax.objectives", OBJECTIVES),
    "model.kind": ("llm_jax.models", MODELS),
    "--source": ("llm_jax.sources", SOURCES),
    "--task": ("llm_jax.evaluations", EVALUATIONS),
}
"""Field or flag → the group of entry points, and our own parts."""


def check_name(where: str, name: str) -> None:
    """Raises `ConfigError` if `name` can stand for nothing.

    Args:
      where: the field or flag that has it, a key of `GROUPS`.
    """
    if name in GROUPS[where][1]:
        return
    known = _known(where)
    file, _, attribute = name.rpartition(":")
    if name in known or (file and attribute.isidentifier()):
        return
    ours = f"choose one of {', '.join(map(repr, known))}, or " if known else ""
    raise ConfigError(f"{where} is {name!r}: {ours}name code of your own as FILE.py:NAME.")


def is_own_code(where: str, name: str) -> bool:
    """Whether `name` stands for code that only the config names, not for an installed part."""
    return name not in GROUPS[where][1] and name not in _known(where)


def own_code(config: RunConfig) -> dict[str, str]:
    """Field → name of each part of a run that is code which only its config names."""
    names = {
        "model.kind": config.model.kind,
        "optim.kind": config.optim.kind,
        "objective": config.objective,
    }
    return {where: name for where, name in names.items() if is_own_code(where, name)}


def load_part(where: str, name: str) -> Any:
    """The object that `name` stands for.

    Args:
      where: the field or flag that has it, a key of `GROUPS`.

    Raises:
      ConfigError: there is no such file, module or name, or it cannot be imported.
    """
    check_name(where, name)
    place = _known(where).get(name, name)
    module_name, _, attribute = place.rpartition(":")
    file = code_file(place)
    try:
        module = _run_file(file.resolve()) if file else importlib.import_module(module_name)
    except FileNotFoundError:
        raise ConfigError(f"{where} is {name!r}: there is no file {module_name!r}.") from None
    except Exception as error:  # whatever the code raises
        if place != name and name in GROUPS[where][1]:
            raise
        line = f"{type(error).__name__}: {error}"
        raise ConfigError(f"{where} is {name!r}, which cannot be imported ({line}).") from error
    require(
        hasattr(module, attribute),
        f"{where} is {name!r}: {module_name!r} has no {attribute!r}.",
    )
    return getattr(module, attribute)


def code_file(name: str) -> Path | None:
    """The file that `name` stands for; None if it is no file."""
    path = name.rpartition(":")[0]
    return Path(path) if path.endswith(".py") else None


def _known(where: str) -> dict[str, str]:
    group, own = GROUPS[where]
    return {**_registered(group), **own}


@functools.cache
def _registered(group: str) -> dict[str, str]:
    import importlib.metadata  # slow, and rarely needed: `--help` takes no longer

    return {entry.name: entry.value for entry in importlib.metadata.entry_points(group=group)}


@functools.cache
def _run_file(path: Path) -> Any:
    """The module in the file `path`. Each file is run once."""
    import importlib.util
    import zlib

    if not path.is_file():
        raise FileNotFoundError(path)
    name = f"llm_jax_own_code_{path.stem}_{zlib.crc32(str(path).encode()):08x}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module
