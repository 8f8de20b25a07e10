"""Exports a checkpoint as one GGUF file, which llama.cpp and the programs built on it read."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from llm_jax.config import ModelConfig, RunConfig, UserError, decoder_of
from llm_jax.config.extras import require_packages
from llm_jax.convert import kept_files, parity
from llm_jax.convert.expert_tensor import ExpertTensor
from llm_jax.convert.families import Family
from llm_jax.convert.gguf_arch import Metadata, architecture_of, context_length
from llm_jax.convert.gguf_arch import metadata as arch_metadata
from llm_jax.convert.gguf_tensors import Part, parts, xielu
from llm_jax.convert.gguf_vocab import vocabulary
from llm_jax.convert.hf_export import Exported, as_hugging_face_has_it, refuse_existing
from llm_jax.convert.tensors import Constant, Tensor, empty, tensors
from llm_jax.convert.vocabulary import cut_vocabulary
from llm_jax.data.tokenizers import Tokenizer
from llm_jax.runs.files import replacing

Params = dict[str, Any]
Quant = gguf.GGMLQuantizationType
DTYPES = {
    "float32": (Quant.F32, gguf.LlamaFileType.ALL_F32),
    "float16": (Quant.F16, gguf.LlamaFileType.MOSTLY_F16),
    "bfloat16": (Quant.BF16, gguf.LlamaFileType.MOSTLY_BF16),
    "q8_0": (Quant.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
}
BLOCK = 32
"""Numbers in a row of q8_0 that share a scale."""


def export_gguf(
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
) -> Exported:
    """Writes the file `out`, which must not exist. A failure leaves nothing behind.

    Args:
      params, check, as_class: as `hf_export.export` takes them.
      dtype: of the matrices, a key of `DTYPES`. Vectors, routers and positions stay float32.

    Raises:
      UserError: `out` exists; llama.cpp computes no such model or has no such tokenizer; a number
        is too large for `dtype`; or the logits that transformers computes from the file differ.
    """
    refuse_existing(out)
    decoder = decoder_of(config.model, "GGUF")
    model, params, notes = cut_vocabulary(decoder, params, tokenizer, run)
    model, params, family = as_hugging_face_has_it(model, params, as_class)
    arch = architecture_of(model, family.model_type)
    named = [one for one in tensors(model, family.model_type) if not isinstance(one, Constant)]
    written = parts(model, arch, named, params)
    described = {f"{arch.name}.{key}": value for key, value in arch_metadata(model, arch).items()}
    described |= {
        f"tokenizer.{key}": value for key, value in vocabulary(tokenizer, model.vocab_size).items()
    }
    kinds = [_kind(part, dtype) for part in written]
    coarse = sum(kind == Quant.F16 for kind in kinds) if dtype == "q8_0" else 0
    if coarse:
        notes.append(
            f"{coarse:,} of {len(written):,} tensors are stored as float16: their rows are no "
            f"multiple of {BLOCK}"
        )
    if (longest := context_length(model, arch)) < model.max_seq_len:
        notes.append(
            f"llama.cpp ignores the sliding window of {family.architecture}: the file's context "
            f"ends with the window, at {longest:,} of {model.max_seq_len:,} tokens, and beyond it "
            "llama.cpp computes something else"
        )
    notes += kept_files.further_layers(run)
    described |= xielu(params)
    notes += arch.notes(model)
    reason = _why_not_compared(model, params, family, check)
    with replacing(out) as file:
        with contextlib.closing(gguf.GGUFWriter(file, arch.name)) as writer:
            writer.add_name(config.name)
            writer.add_file_type(DTYPES[dtype][1])
            writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
            _describe(writer, described)
            for part, kind in zip(written, kinds, strict=True):
                size = math.prod(gguf.quant_shape_to_byte_shape(part.shape, kind))
                like = np.dtype(np.float32)
                writer.add_tensor_info(part.name, part.shape, like, size, raw_dtype=kind)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            for part, kind in zip(written, kinds, strict=True):
                writer.write_tensor_data(_stored(part, kind, params))
        difference = None
        if reason is None:
            stored = {
                source.name: (part, kind)
                for part, kind in zip(written, kinds, strict=True)
                for source in part.sources
            }
            difference = _compared(file, model, params, tokenizer, named, stored)
        size = file.stat().st_size
    return Exported(arch.name, [out.name], size, difference, reason, notes)


def _kind(part: Part, dtype: str) -> Any:
    if part.whole:
        return Quant.F32
    if dtype == "q8_0" and part.shape[-1] % BLOCK:
        return Quant.F16
    return DTYPES[dtype][0]


def _stored(part: Part, kind: Any, params: Params) -> np.ndarray:
    values = part.read(params)
    if kind in (Quant.F16, Quant.Q8_0) and (largest := float(np.abs(values).max())) > 65504:
        raise UserError(
            f"{part.name} holds {largest:.3g}, which float16 cannot: export with --dtype bfloat16."
        )
    return gguf.quants.quantize(values, kind)


def _describe(writer: Any, described: Metadata) -> None:
    for key, value in described.items():
        if isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        elif isinstance(value, str):
            writer.add_string(key, value)
        else:
            writer.add_array(key, value)


def _why_not_compared(
    model: ModelConfig, params: Params, family: Family, check: bool
) -> str | None:
    """None if transformers reads all of the model from a GGUF file, and there is memory for it."""
    if not check:
        return "--no-check"
    parity.require_transformers("pass --no-check to export without the comparison")
    require_packages("Comparing logits", "accelerate", way_out="or give --no-check")
    if lost := _not_read(model, family):
        return f"transformers does not read {lost} from a GGUF file"
    return parity.why_too_large(parity.size_of(params))


def _not_read(model: ModelConfig, family: Family) -> str | None:
    """What transformers would lose of the model: its reader knows few keys."""
    kind = family.model_type
    usual = model.num_heads * model.head_dim == model.d_model
    if kind not in ("llama", "mistral", "qwen2", "qwen3", "gpt2"):
        return f"all of a {kind} model"
    if model.rope_scaling is not None:
        return "the scaling of rotary positions"
    if model.sliding_window is not None:
        return "windows"
    if model.biases and kind in ("llama", "mistral", "qwen3"):
        return f"the biases of {kind}"
    if model.d_model % model.num_heads:
        return "a width that the number of heads does not divide"
    if kind == "gpt2" and (model.max_seq_len != 1024 or model.d_ff != 4 * model.d_model):
        return "the sizes of GPT-2"
    if (kind == "qwen3" and model.head_dim != 128) or (kind == "qwen2" and not usual):
        return "the size of heads"
    return None


def _compared(
    file: Path,
    model: ModelConfig,
    params: Params,
    tokenizer: Tokenizer,
    named: list[Tensor | ExpertTensor],
    stored: dict[str, tuple[Part, Any]],
) -> float:
    """The largest difference of logits between transformers with the file, and this model with the
    numbers that the file holds.

    Args:
      stored: name of a Hugging Face tensor → its part of the file, and how it is stored.

    Raises:
      UserError: it is too large.
    """
    rounded = empty(model)
    for tensor in named:
        values = tensor.read(params, np.dtype(np.float32))
        if tensor.name in stored:
            values = _rounded(values, *stored[tensor.name])
        tensor.write(values, rounded)
    tokens_BT = parity.sample_tokens(tokenizer, model)
    ours = parity.our_logits(rounded, model, tokens_BT)
    theirs = parity.their_logits(file.parent, tokens_BT, gguf_file=file.name)
    difference = parity.max_difference(ours, theirs)
    parity.require_same(difference, "exported", " from the file")
    return difference


def _rounded(values: np.ndarray, part: Part, kind: Any) -> np.ndarray:
    """The float32 numbers that the file holds in place of a tensor of Hugging Face."""
    turned = values.T if part.turned else values
    read = gguf.quants.dequantize(gguf.quants.quantize(np.ascontiguousarray(turned), kind), kind)
    return read.T if part.turned else read
