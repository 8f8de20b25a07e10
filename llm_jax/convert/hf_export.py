"""Exports a checkpoint as a Hugging Face folder, compared with transformers before it appears."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from llm_jax.config import Architecture, EncoderDecoderConfig, ModelConfig, RunConfig, UserError
from llm_jax.convert import hf_tokenizer, kept_files, parity, sentinels, shards
from llm_jax.convert.equivalent import in_form
from llm_jax.convert.families import Family, as_exported, family_of
from llm_jax.convert.hf_config import to_hf
from llm_jax.convert.model_card import model_card
from llm_jax.convert.others import other_of
from llm_jax.convert.others.other import MASKED
from llm_jax.convert.tensors import DTYPES, tensors
from llm_jax.data.tokenizers import Tokenizer
from llm_jax.runs.files import new_folder

Params = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Exported:
    """What an export wrote; `max_logit_difference` is None if nothing was compared."""

    architecture: str
    files: list[str]
    num_bytes: int
    max_logit_difference: float | None


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
) -> Exported:
    """Writes the folder `out`, which must be empty or not exist. A failure leaves it as it was.

    Args:
      params: tree of the model's `init`, NumPy or JAX arrays.
      run: the run's folder, for the model card.
      dtype: dtype of the stored weights, "float32" or "bfloat16".
      check: load the files with transformers and compare logits in float32.

    Raises:
      UserError: `out` is not empty, no architecture fits, transformers is missing, or its logits
        or token ids differ.
    """
    refuse_nonempty(out)
    model, params = as_hugging_face_has_it(config.model, params)
    other = other_of(model)
    architecture = other.architecture(model) if other else family_of(model).architecture
    if check:
        parity.require_transformers("pass --no-check to export without the comparison")
    difference = None
    with new_folder(out) as folder:
        files = write_weights(folder, model, params, dtype)
        files += hf_tokenizer.write(folder, tokenizer, model.max_seq_len)
        if other and other.pipeline == MASKED:
            files += hf_tokenizer.name_mask(folder, tokenizer)
        if isinstance(model, EncoderDecoderConfig):
            files += sentinels.add(folder, tokenizer, model)
        made = other.to_hf(model, tokenizer, dtype) if other else to_hf(model, tokenizer, dtype)
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
        if check:
            difference = checked(folder, model, params, tokenizer, dtype)
        size = sum((folder / file).stat().st_size for file in files)
    return Exported(architecture, files, size, difference)


def as_hugging_face_has_it(model: Architecture, params: Params) -> tuple[Any, Params]:
    """The model `as_exported`, which computes the same."""
    if not isinstance(model, ModelConfig):
        return model, params
    exported = as_exported(model)
    return exported, params if exported == model else in_form(params, model, exported)


def write_weights(
    folder: Path,
    model: Architecture,
    params: Params,
    dtype: str,
    shard_bytes: int = shards.SHARD_BYTES,
    family: Family | None = None,
) -> list[str]:
    """Writes `params` as safetensors; memory holds copies of one file's tensors at a time."""
    model_type = family.model_type if family else model_type_of(model)
    named = {tensor.name: tensor for tensor in tensors(model, model_type)}
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
      UserError: the token ids differ, or the difference is above the tolerance.
    """
    line = parity.tokenizer_difference(folder, tokenizer)
    if line is not None:
        raise UserError(f"AutoTokenizer gives other ids than the run's tokenizer for {line!r}.")
    stored = jax.tree.map(lambda leaf: jnp.asarray(leaf).astype(dtype).astype("float32"), params)
    difference = parity.difference_from(folder, stored, model, tokenizer)
    if difference > parity.TOLERANCE:
        raise UserError(
            f"transformers computes logits that differ by {difference:.2g} from this model's, more "
            f"than {parity.TOLERANCE:g}: nothing was exported."
        )
    return difference


def model_type_of(model: Architecture) -> str:
    """The `model_type` that a model is exported as; raises `UserError` if there is none."""
    if isinstance(model, ModelConfig):
        return family_of(model).model_type
    other = other_of(model)
    assert other is not None
    return other.model_type


def refuse_nonempty(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is not empty: choose a new folder, or remove it first.")


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
