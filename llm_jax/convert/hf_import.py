"""Imports a Hugging Face folder as a run folder. The folder is not trusted."""

from __future__ import annotations

import importlib.metadata
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from llm_jax.config import RunConfig, UserError, read_text, to_dict, to_json
from llm_jax.convert import hf_config, kept_files, parity
from llm_jax.convert.hf_export import refuse_nonempty
from llm_jax.convert.hf_model import Model, open_model, read_config_json
from llm_jax.convert.hf_read import require_fits, run_config
from llm_jax.convert.tensor_file import TensorFile
from llm_jax.data.tokenizers import Tokenizer
from llm_jax.models.protocol import model_of
from llm_jax.runs.files import new_folder
from llm_jax.runs.history import append, beginning
from llm_jax.train.checkpoint import VERSIONED
from llm_jax.train.finite import require_finite
from llm_jax.train.layer_save import LayeredArray, save_params
from llm_jax.train.manifest import write_manifest
from llm_jax.train.run_folder import CHECKPOINT_FORMAT, unwritable

Params = dict[str, Any]


def import_run(
    folder: Path,
    out: Path,
    tokenizer: Tokenizer,
    *,
    check: bool,
    licence: str | None = None,
    elsewhere: Callable[[str], TensorFile] | None = None,
    address: str | None = None,
) -> Imported:
    """Creates a run folder whose checkpoint 0 holds the weights of `folder`.

    Memory holds about two tensors, unless the logits are compared.

    Args:
      check: compare logits, if memory is enough for that.
      licence: of the model; None: what the model card in `folder` says, if it does.
      elsewhere: opens the files of weights, if they are not in `folder`.
      address: where `folder` was copied from.

    Raises:
      UserError: as `open_model` does; `out` is not empty, the tokenizer does not fit, a weight is
        not a finite number, or transformers computes something else.
    """
    refuse_nonempty(out)
    if problem := unwritable(out, "RUN"):
        raise UserError(problem)
    model = open_model(folder, compared=check, elsewhere=elsewhere)
    require_fits(read_config_json(folder), model.config, tokenizer)
    difference: float | None = None
    reason: str | None = "--no-check"
    if check:
        parity.require_transformers("pass --no-check to import without the comparison")
        reason = "transformers would need a copy of the weights"
        if hf_config.quant_method(read_config_json(folder)) == "fp8":
            reason = "transformers computes weights in FP8 in another precision"
        elif elsewhere is None:
            reason = parity.why_too_large(sum(map(math.prod, model.weights.shapes.values())))
        if reason is None:
            difference = _compared(folder, model, tokenizer)
        elif unknown := hf_config.unknown_keys(read_config_json(folder)):
            raise UserError(
                f"config.json has {unknown[0]}, which this importer does not know, and the logits "
                f"cannot be compared ({reason}): the model could compute something else."
            )
    config = run_config(model.config, out)
    with new_folder(out) as made:
        write_run(made, config, model.layers(), tokenizer)
        kept_files.keep(folder, made)
        place = address or str(folder.absolute())
        name = place.rstrip("/").rpartition("/")[2]
        parent = {"kind": "model", "run": place, "name": name, "step": 0}
        parent["licence"] = licence or _licence_of(folder)
        append(made, beginning(config, None, parent).entries[0])
        files = sorted(path.name for path in made.iterdir())
    return Imported(config, files, difference, reason)


@dataclass(frozen=True)
class Imported:
    """What an import wrote.

    Attributes:
      files: files and folders of the run.
      max_logit_difference: from transformers on real text; None if nothing was compared.
      not_compared: why not; None if something was.
    """

    config: RunConfig
    files: list[str]
    max_logit_difference: float | None
    not_compared: str | None


def _compared(folder: Path, model: Model, tokenizer: Tokenizer) -> float:
    """The largest difference of logits from transformers; raises `UserError` if it is too large."""
    params = model.params()
    require_finite(params, str(folder), "download it again")
    difference = parity.difference_from(folder, params, model.config, tokenizer)
    parity.require_same(difference, "imported")
    return difference


def _licence_of(folder: Path) -> str | None:
    """The licence in the front matter of the folder's README.md; None if it says none."""
    try:
        card = read_text(folder / "README.md")
    except UserError:
        return None
    front = re.match(r"---\s*\n(.*?)\n---", card, re.DOTALL)
    said = dict(re.findall(r"^(license|license_name):[ \t]*(\S+)", front[1], re.M) if front else ())
    name = said.get("license_name") or said.get("license")
    return name.strip("\"'") if name else None


def write_run(folder: Path, config: RunConfig, params: Params, tokenizer: Tokenizer) -> None:
    """Writes run.json, the tokenizer, and checkpoint 0 without optimizer state.

    Args:
      params: tree of arrays, or of `LayeredArray`.
    """
    (folder / "run.json").write_text(to_json(config), encoding="utf-8")
    tokenizer.save(folder)
    meta = {
        "format": CHECKPOINT_FORMAT,
        "stacked_layers": True,
        "step": 0,
        "config": to_dict(config),
        "data": {"seed": config.data.seed, "next_step": 0},
        "tokenizer_sha256": tokenizer.sha256,
        "versions": {name: importlib.metadata.version(name) for name in VERSIONED},
    }
    stacks = model_of(config.model).layout(config.model).stacks

    def array(path: Any, leaf: Any) -> LayeredArray:
        if isinstance(leaf, LayeredArray):
            return leaf
        return LayeredArray.of(leaf, stacked=path[0].key in stacks)

    params = jax.tree_util.tree_map_with_path(array, params)
    save_params(folder / "checkpoints", 0, params, meta)
    write_manifest(folder / "checkpoints" / "0")
