"""Imports a Hugging Face folder as parameters or as a run folder. The folder is not trusted."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp

from llm_jax.config import (
    DataConfig,
    ModelConfig,
    RunConfig,
    UserError,
    read_json,
    read_text,
    to_dict,
    to_json,
)
from llm_jax.config.wording import counted
from llm_jax.convert import hf_config, kept_files, parity
from llm_jax.convert.expert_tensor import ExpertTensor
from llm_jax.convert.families import Family, family_named
from llm_jax.convert.hf_export import refuse_nonempty
from llm_jax.convert.mxfp4 import Mxfp4Weights
from llm_jax.convert.own_tokenizer import require_belongs
from llm_jax.convert.shards import Weights
from llm_jax.convert.tensors import Constant, Tensor, empty, tensors
from llm_jax.data.tokenizers import Tokenizer
from llm_jax.runs.disk_errors import system_error
from llm_jax.runs.files import new_folder
from llm_jax.runs.history import append, beginning
from llm_jax.train.checkpoint import VERSIONED
from llm_jax.train.failures import without_tensorstore_noise
from llm_jax.train.finite import require_finite
from llm_jax.train.manifest import write_manifest
from llm_jax.train.run_folder import CHECKPOINT_FORMAT, unwritable

Params = dict[str, Any]
# Buffers in old checkpoints. They are not parameters.
BUFFERS = (
    ".rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias", ".attention.bias",
    ".attention.masked_bias",
)  # fmt: skip


def read(folder: Path, *, compared: bool = False) -> tuple[ModelConfig, Params]:
    """The architecture and float32 NumPy parameters of a Hugging Face folder.

    Raises:
      UserError: there is no such folder, the architecture is not supported, a file is unsafe or
        damaged, or a tensor is missing, not used, or has another shape than config.json says.
    """
    raw = read_config_json(folder)
    config, family = hf_config.from_hf(raw, compared=compared), family_named(raw["model_type"])
    quantised = hf_config.quant_method(raw) is not None
    weights = Mxfp4Weights(folder) if quantised else Weights(folder)
    stored = _stored_names(weights, family, config)
    return config, fill(folder, config, family.model_type, weights, stored)


def fill(
    folder: Path, config: Any, model_type: str, weights: Weights, stored: dict[str, str]
) -> Params:
    """The parameters of an architecture as float32 NumPy arrays, with the values of `weights`.

    Args:
      stored: name in transformers → name in `weights`, of all tensors that must be used.

    Raises:
      UserError: a tensor is missing, not used, or has another shape.
    """
    params = empty(config)
    for tensor in tensors(config, model_type):
        if tensor.name not in stored:
            raise UserError(
                f"{folder} has no tensor {tensor.name!r}, but its config.json needs it."
            )
        _fill(tensor, weights, stored.pop(tensor.name), params)
    if stored:
        names = ", ".join(sorted(stored.values())[:3])
        raise UserError(
            f"{folder} has {counted(len(stored), 'tensor')} that its config.json does not use: "
            f"{names}."
        )
    return params


def read_config_json(folder: Path) -> dict[str, Any]:
    """config.json of a Hugging Face folder; raises `UserError` if there is none."""
    path = folder / "config.json"
    if not path.is_file():
        raise UserError(f"There is no {path}: give a folder in Hugging Face format.")
    raw = read_json(path)
    if not isinstance(raw, dict):
        raise UserError(f"{path} is not a JSON object.")
    return raw


def _stored_names(weights: Weights, family: Family, config: ModelConfig) -> dict[str, str]:
    """Name in transformers → name in the files, without buffers and tied duplicates."""
    older = family.naming.older
    names = {older.get(n, n): n for n in weights.shapes if not n.endswith(BUFFERS)}
    prefix, unembed = family.naming.optional_prefix, family.naming.names["unembed"]
    if prefix and not any(n.startswith(prefix) for n in names):
        head = (unembed, family.naming.names.get("unembed_bias"))
        names = {n if n in head else f"{prefix}{n}": n for n in names}
    if config.tie_embeddings:
        names.pop(unembed, None)
    return names


def _fill(
    tensor: Tensor | ExpertTensor | Constant, weights: Weights, stored: str, params: Params
) -> None:
    shape = weights.shapes[stored]
    if shape != tensor.shape:
        raise UserError(
            f"Tensor {stored!r} has shape {list(shape)}, but config.json says {list(tensor.shape)}."
        )
    tensor.write(weights.read(stored), params)


def read_with(
    folder: Path, tokenizer: Tokenizer, *, compared: bool = False
) -> tuple[ModelConfig, Params]:
    """`read`, for a model that is to be used with `tokenizer`.

    Raises:
      UserError: as `read` does; or a weight is not a finite number, or the tokenizer does not fit.
    """
    model, params = read(folder, compared=compared)
    require_belongs(read_config_json(folder), model.vocab_size, tokenizer)
    require_finite(params, str(folder), "download it again")
    return model, params


def import_run(
    folder: Path, out: Path, tokenizer: Tokenizer, *, check: bool, licence: str | None = None
) -> tuple[RunConfig, list[str], float | None]:
    """Creates a run folder whose checkpoint 0 holds the weights of `folder`.

    Args:
      licence: of the model; None: what the model card in `folder` says, if it does.

    Returns:
      The run's config, the files and folders in it, and the largest difference of logits from
      transformers on real text, None if `check` is off.

    Raises:
      UserError: as `read_with` does; or `out` is not empty, or transformers computes something
        else.
    """
    refuse_nonempty(out)
    if problem := unwritable(out, "RUN"):
        raise UserError(problem)
    if check:
        parity.require_transformers("pass --no-check to import without the comparison")
    model, params = read_with(folder, tokenizer, compared=check)
    difference = None
    if check:
        tokens_BT = parity.sample_tokens(tokenizer, model)
        ours = parity.our_logits(params, model, tokens_BT)
        difference = parity.max_difference(ours, parity.their_logits(folder, tokens_BT))
        if difference > parity.TOLERANCE:
            raise UserError(
                f"transformers computes logits that differ by {difference:.2g} from this model's, "
                f"more than {parity.TOLERANCE:g}: nothing was imported."
            )
    config = run_config(model, out)
    with new_folder(out) as made:
        write_run(made, config, params, tokenizer)
        kept_files.keep(folder, made)
        place = folder.absolute()
        parent = {"kind": "model", "run": str(place), "name": place.name, "step": 0}
        parent["licence"] = licence or _licence_of(folder)
        append(made, beginning(config, None, parent).entries[0])
        files = sorted(path.name for path in made.iterdir())
    return config, files, difference


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


def run_config(model: ModelConfig, out: Path) -> RunConfig:
    """A run in `out` with the imported architecture, and the defaults of everything else."""
    data = DataConfig(seq_len=min(1024, model.max_seq_len))
    return RunConfig(name=out.name, out=str(out), steps=1000, model=model, data=data)


def write_run(folder: Path, config: RunConfig, params: Params, tokenizer: Tokenizer) -> None:
    """Writes run.json, the tokenizer, and checkpoint 0 without optimizer state."""
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
    args = ocp.args.Composite(params=ocp.args.StandardSave(params), meta=ocp.args.JsonSave(meta))
    try:
        with (
            without_tensorstore_noise(),
            ocp.CheckpointManager(folder.absolute() / "checkpoints") as manager,
        ):
            manager.save(0, args=args)
            manager.wait_until_finished()
    except (ValueError, RuntimeError) as error:  # how TensorStore reports a failing disk
        raise system_error(error, folder) from error
    write_manifest(folder / "checkpoints" / "0")
