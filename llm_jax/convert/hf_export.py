"""Exports a checkpoint as a Hugging Face folder, compared with transformers before it appears."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from llm_jax.config import (
    Architecture,
    ModelConfig,
    RunConfig,
    SourceToTarget,
    UserError,
    decoder_of,
    layers_of,
)
from llm_jax.config.architecture import has_head
from llm_jax.convert import (
    hf_config,
    hf_tokenizer,
    kept_files,
    parity,
    sentences,
    sentinels,
    shards,
)
from llm_jax.convert.equivalent import in_form
from llm_jax.convert.families import Family, family_of
from llm_jax.convert.fitting import fitting
from llm_jax.convert.model_card import model_card
from llm_jax.convert.others import other_of
from llm_jax.convert.others.other import MASKED, Other
from llm_jax.convert.tensors import DTYPES, Absent, Stored, with_absent
from llm_jax.convert.vocabulary import cut_vocabulary
from llm_jax.data.tokenizers import Tokenizer
from llm_jax.runs.files import new_folder

Params = dict[str, Any]
WINDOWS_IGNORED = (
    "mistral", "mixtral", "phi3", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "starcoder2",
)  # fmt: skip
"""Model types that llama.cpp computes without their windows."""


@dataclasses.dataclass(frozen=True)
class Exported:
    """What an export wrote.

    Attributes:
      architecture: class of transformers.
      max_logit_difference: None if nothing was compared.
      not_compared: why not; None if something was.
      notes: sentences about what went out otherwise than it is in the run, and about programs that
        compute something else from it.
    """

    architecture: str
    files: list[str]
    num_bytes: int
    max_logit_difference: float | None
    not_compared: str | None
    notes: list[str]


def export(
    config: RunConfig,
    step: int,
    params: Params,
    tokenizer: Tokenizer,
    out: Path,
    *,
    run: Path,
    dtype: str = "float32",
    check: bool = True,
    as_class: str | None = None,
    shard_bytes: int = shards.SHARD_BYTES,
) -> Exported:
    """Writes the folder `out`, which must be empty or not exist. A failure leaves it as it was.

    Args:
      params: tree of the model's `init`: NumPy arrays, JAX arrays, or `StoredArray`, of which about
        two tensors are in memory at a time, unless the logits are compared.
      run: the run's folder, for the model card.
      dtype: dtype of the stored weights, "float32" or "bfloat16".
      check: load the files with transformers and compare logits in float32, if memory is enough.
      as_class: model type or class of transformers; None: the first that has the model's options.
      shard_bytes: most bytes of a file, unless a single tensor is larger.

    Raises:
      UserError: `out` is not empty, no architecture fits, transformers is missing, or its logits
        or token ids differ.
    """
    refuse_nonempty(out)
    model, params, family, notes = config.model, params, None, list[str]()
    other = other_of(model)
    if isinstance(model, ModelConfig):
        model, params, notes = cut_vocabulary(model, params, tokenizer, run)
        model, params, family = as_hugging_face_has_it(model, params, as_class)
    elif as_class is not None:
        raise UserError(
            f"--as {as_class}: a model of kind {model.kind!r} has one class of transformers; leave "
            "--as out."
        )
    architecture = family.architecture if family else _other(model).architecture(model)
    if check:
        parity.require_transformers("pass --no-check to export without the comparison")
    difference: float | None = None
    reason: str | None = "--no-check"
    with new_folder(out) as folder:
        files = write_weights(folder, model, params, dtype, shard_bytes, family)
        files += hf_tokenizer.write(folder, tokenizer, model.max_seq_len)
        if other and other.pipeline == MASKED:
            files += hf_tokenizer.name_mask(folder, tokenizer)
        if has_head(model):
            files += sentences.write(folder, tokenizer, model)
        if isinstance(model, SourceToTarget):
            files += sentinels.add(folder, tokenizer, model)
        if other:
            made = other.to_hf(model, tokenizer, dtype)
        else:
            made = hf_config.to_hf(decoder_of(model, "config.json"), tokenizer, dtype, family)
        made |= kept_files.special_ids(run)
        _write_json(folder / "config.json", made)
        if other is None or other.generates:
            special = {
                key: made[key]
                for key in (*kept_files.SPECIAL, "decoder_start_token_id")
                if key in made
            }
            _write_json(folder / kept_files.GENERATION, special)
            files.append(kept_files.GENERATION)
        kept = kept_files.give_back(run, folder)
        card = model_card(config, step, params, architecture, run)
        (folder / "README.md").write_text(card, encoding="utf-8")
        files = [*dict.fromkeys(files), *sorted({"config.json", "README.md", *kept} - {*files})]
        if check and has_head(model):
            notes += sentences.notes(folder, tokenizer)
        if check:
            require_same_ids(folder, tokenizer)
            reason = parity.why_too_large(parity.size_of(params))
            if reason is None:
                difference = checked(folder, model, params, tokenizer, dtype)
            elif layers_of(model).moe is None:  # transformers stacks experts when it loads
                renamed = family.naming.older if family else {}
                parity.require_same_names(folder, architecture, renamed)
        size = sum((folder / file).stat().st_size for file in files)
    if isinstance(model, ModelConfig) and family:
        notes += computed_otherwise(model, family) + kept_files.further_layers(run)
    return Exported(architecture, files, size, difference, reason, notes)


def computed_otherwise(model: ModelConfig, family: Family) -> list[str]:
    """Sentences about programs that compute something else from the files than transformers."""
    notes = []
    if model.sliding_window is not None and family.model_type in WINDOWS_IGNORED:
        notes.append(
            f"llama.cpp ignores the sliding window of {family.architecture}: beyond "
            f"{model.sliding_window:,} tokens it computes something else"
        )
    if model.out_bias and family.model_type == "qwen3":
        notes.append(
            "llama.cpp does not load what its converter makes of Qwen3 with output biases: for "
            "llama.cpp, export with --to gguf"
        )
    return notes


def as_hugging_face_has_it(
    model: ModelConfig, params: Params, as_class: str | None = None
) -> tuple[ModelConfig, Params, Family]:
    """The model in the form in which a class of transformers has it, which computes the same.

    Raises:
      UserError: no class has the model's options, or the one that is named has not.
    """
    exported, family = fitting(model, as_class)
    return exported, params if exported == model else in_form(params, model, exported), family


def write_weights(
    folder: Path,
    model: Architecture,
    params: Params,
    dtype: str,
    shard_bytes: int = shards.SHARD_BYTES,
    family: Family | None = None,
) -> list[str]:
    """Writes `params` as safetensors; memory holds copies of one tensor at a time."""
    model_type = family.model_type if family else model_type_of(model)
    named: dict[str, Stored] = {}
    for tensor in with_absent(model, model_type):
        if isinstance(tensor, Absent):
            tensor.require_zero(params, model_type)
        else:
            named[tensor.name] = tensor
    shapes = {name: tensor.shape for name, tensor in named.items()}
    kind = DTYPES[dtype]
    return shards.write(
        folder, shapes, kind, lambda name: named[name].read(params, kind), shard_bytes
    )


def checked(
    folder: Path, model: Architecture, params: Params, tokenizer: Tokenizer, dtype: str
) -> float:
    """The largest difference of logits on real text.

    Raises:
      UserError: it is above the tolerance.
    """
    stored = jax.tree.map(lambda leaf: _rounded(leaf, dtype), params)
    difference = parity.difference_from(folder, stored, model, tokenizer)
    parity.require_same(difference, "exported")
    return difference


def model_type_of(model: Architecture) -> str:
    """The `model_type` that a model is exported as; raises `UserError` if there is none."""
    if isinstance(model, ModelConfig):
        return family_of(model).model_type
    return _other(model).model_type


def _other(model: Architecture) -> Other:
    """The family of what is not a decoder."""
    other = other_of(model)
    assert other is not None
    return other


def _rounded(leaf: Any, dtype: str) -> jax.Array:
    return jnp.asarray(np.asarray(leaf)).astype(dtype).astype("float32")


def require_same_ids(folder: Path, tokenizer: Tokenizer) -> None:
    """Raises `UserError` if AutoTokenizer gives other ids of a sample text."""
    line = parity.tokenizer_difference(folder, tokenizer)
    if line is not None:
        raise UserError(f"AutoTokenizer gives other ids than the run's tokenizer for {line!r}.")


def refuse_existing(out: Path) -> None:
    if out.exists():
        raise UserError(f"{out} exists: choose a new file, or remove it first.")


def refuse_nonempty(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is not empty: choose a new folder, or remove it first.")


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
