"""Compares what transformers computes from the files with what this model computes."""

from __future__ import annotations

import functools
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from llm_jax.config import Architecture, ComputeConfig, UserError, read_json
from llm_jax.convert.hf_config import quant_method
from llm_jax.convert.others import other_of
from llm_jax.convert.sample import SAMPLE
from llm_jax.data.tokenizers import Tokenizer
from llm_jax.models.protocol import Context, model_of

TOLERANCE = 1e-4
"""Largest difference of two logits in float32 that counts as the same computation."""
CHECK_TOKENS = 512


def require_transformers(way_out: str) -> ModuleType:
    """The `transformers` package beside an importable torch; `UserError` if either is missing."""
    try:
        import torch  # noqa: F401
        import transformers
    except ImportError as error:
        raise UserError(
            f"Comparing logits needs {error.name}: `pip install 'llm-jax[hf]'`, or {way_out}."
        ) from None
    # Its progress bars and hints would mix with our own output; what it loads is checked below.
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    return transformers


def sample_tokens(tokenizer: Tokenizer, config: Architecture) -> np.ndarray:
    """(1, T) int32: <s>, English, Japanese and code; T is what the model allows, at most 512."""
    length = min(CHECK_TOKENS, config.max_seq_len)
    ids = [tokenizer.bos_id, *tokenizer.encode(SAMPLE)]
    return np.resize(np.asarray(ids, np.int32), length)[None]


def our_logits(params: dict[str, Any], config: Architecture, tokens_BT: np.ndarray) -> np.ndarray:
    """float32 logits (B, T, V) of unpacked sequences, with all matmuls in full precision."""
    with jax.default_matmul_precision("highest"):
        return np.asarray(_forward(params, jnp.asarray(tokens_BT), config))


@functools.partial(jax.jit, static_argnames="config")
def _forward(params: dict[str, Any], tokens_BT: jax.Array, config: Architecture) -> jax.Array:
    context = Context(ComputeConfig(dtype="float32", remat="none", attention="reference"))
    batch = {
        "inputs": tokens_BT,
        "segments": jnp.ones(tokens_BT.shape, jnp.int32),
        "positions": jnp.broadcast_to(jnp.arange(tokens_BT.shape[1]), tokens_BT.shape),
    }
    family = model_of(config)
    return family.logits(family.forward(params, batch, config, context).x_BTD, params, config)


def their_logits(folder: Path, tokens_BT: np.ndarray) -> np.ndarray:
    """float32 logits (B, T, V) of the model that transformers loads from `folder`.

    Raises:
      UserError: as `their_model` does.
    """
    import torch

    model = their_model(folder, "AutoModelForCausalLM")
    with torch.no_grad():
        return model(torch.from_numpy(tokens_BT.astype(np.int64))).logits.numpy()


def their_model(folder: Path, name: str) -> Any:
    """The model that the class `name` of transformers loads from `folder`, in float32.

    Raises:
      UserError: transformers cannot load it, or reports missing or unexpected tensors.
    """
    import torch
    import transformers

    raw = read_json(folder / "config.json")
    packed = isinstance(raw, dict) and quant_method(raw) == "mxfp4"
    dequantised = (
        {"quantization_config": transformers.Mxfp4Config(dequantize=True)} if packed else {}
    )
    try:
        loaded: Any = getattr(transformers, name).from_pretrained(
            folder,
            dtype=torch.float32,
            attn_implementation="eager",
            output_loading_info=True,
            use_safetensors=True,
            local_files_only=True,
            **dequantised,
        )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"transformers cannot load {folder} ({reason}).") from error
    model, info = loaded
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if info[kind]:
            names = ", ".join(map(str, sorted(info[kind])[:3]))
            raise UserError(f"transformers reports {kind.replace('_', ' ')} in {folder}: {names}.")
    return model.eval()


def difference_from(
    folder: Path, params: dict[str, Any], config: Architecture, tokenizer: Tokenizer
) -> float:
    """The largest difference of two outputs on real text, here and in transformers.

    Raises:
      UserError: as `their_model` does.
    """
    tokens_BT, other = sample_tokens(tokenizer, config), other_of(config)
    if other is None:
        ours = our_logits(params, config, tokens_BT)
        return max_difference(ours, their_logits(folder, tokens_BT))
    import torch

    theirs = their_model(folder, other.architecture(config))
    with torch.no_grad():
        return max_difference(
            other.ours(params, config, tokens_BT), other.theirs(theirs, tokens_BT)
        )


def tokenizer_difference(folder: Path, tokenizer: Tokenizer) -> str | None:
    """First line of the sample that AutoTokenizer encodes differently, None if there is none."""
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    for line in [*SAMPLE.splitlines(), SAMPLE, *tokenizer.special]:
        if theirs(line, add_special_tokens=False)["input_ids"] != tokenizer.encode(line):
            return line
    return None


def max_difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Largest absolute difference; infinite where either is not finite or the shapes differ."""
    if ours.shape != theirs.shape:
        return float("inf")
    difference = float(np.max(np.abs(ours - theirs)))
    return difference if np.isfinite(difference) else float("inf")
