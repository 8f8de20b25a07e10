"""Compares what transformers computes from the files with what this model computes."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from llm_jax.config import Architecture, UserError, read_json
from llm_jax.convert.families.further import of_further_layers
from llm_jax.convert.hf_config import quant_method
from llm_jax.convert.others import other_of
from llm_jax.convert.sample import SAMPLE
from llm_jax.convert.shards import Weights
from llm_jax.data.tokenizers import Tokenizer
from llm_jax.models.protocol import PLAIN, model_of

TOLERANCE = 1e-4
"""Largest difference of two logits in float32 that counts as the same computation."""
CHECK_TOKENS = 512
COPIES, LIBRARIES = 4, 600_000_000
"""Float32 copies of a model that the comparison holds, and bytes of the programs (measured)."""
WITHOUT: dict[str, dict[str, Any]] = {"BertModel": {"add_pooling_layer": False}}
"""Class → what leaves out a layer that a model of ours does not have, and no vector needs."""
GROUP = Path("/sys/fs/cgroup")
"""Of this process, in a container."""


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


def why_too_large(params: int) -> str | None:
    """Why the logits of a model with so many parameters are not compared; None if they can be."""
    needed, free = COPIES * 4 * params + LIBRARIES, free_memory()
    if free is None or needed <= free:
        return None
    return f"that would take about {needed / 1e9:,.1f} GB of memory, {free / 1e9:,.1f} GB are free"


def size_of(params: Any) -> int:
    """Parameters of a tree of arrays, on disk or in memory."""
    return sum(math.prod(np.shape(leaf)) for leaf in jax.tree.leaves(params))


def free_memory() -> int | None:
    """Bytes that this process can still take, by the machine and by its control group; None where
    the system does not say."""
    free = _figures(Path("/proc/meminfo")).get("MemAvailable")
    limits = [] if free is None else [free * 1024]
    with contextlib.suppress(OSError, ValueError):  # there is no group, or its limit is "max"
        most = int((GROUP / "memory.max").read_text(encoding="ascii"))
        limits.append(most - _figures(GROUP / "memory.stat").get("anon", 0))
    return min(limits, default=None)


def _figures(path: Path) -> dict[str, int]:
    """The lines `name number` of a file of the kernel; none if there is no such file."""
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except OSError:
        return {}
    return {line.split()[0].rstrip(":"): int(line.split()[1]) for line in lines}


def sample_tokens(tokenizer: Tokenizer, config: Architecture) -> np.ndarray:
    """(1, T) int32: <s>, English, Japanese and code; T is what the model allows, at most 512."""
    length = min(CHECK_TOKENS, config.max_seq_len)
    ids = [tokenizer.bos_id, *tokenizer.encode(SAMPLE)]
    return np.resize(np.asarray(ids, np.int32), length)[None]


def require_same_names(
    folder: Path, architecture: str, renamed: Mapping[str, str] | None = None
) -> None:
    """Compares names and shapes of the tensors in `folder` with the model that transformers builds
    from its config.json, without memory for its weights.

    Args:
      architecture: its class in transformers.
      renamed: name in that class → name in its files, where the two differ.

    Raises:
      UserError: they differ.
    """
    import torch
    import transformers

    with torch.device("meta"):
        config = transformers.AutoConfig.from_pretrained(folder)
        model = getattr(transformers, architecture)(config, **WITHOUT.get(architecture, {}))
    stored, parameters = model.state_dict(), dict(model.named_parameters())  # tied ones once
    copies = dict(model.named_parameters(remove_duplicate=False)).keys() - parameters.keys()
    kept = {name: tuple(one.shape) for name, one in stored.items() if name not in copies}
    theirs = {(renamed or {}).get(name, name): shape for name, shape in kept.items()}
    ours = Weights(folder).shapes
    for name in sorted(theirs.keys() ^ ours.keys()):
        raise UserError(f"transformers and the export do not both have the tensor {name!r}.")
    for name, shape in theirs.items():
        if ours[name] != shape:
            raise UserError(
                f"transformers wants {name!r} with shape {list(shape)}, the export has "
                f"{list(ours[name])}."
            )


def our_logits(params: dict[str, Any], config: Architecture, tokens_BT: np.ndarray) -> np.ndarray:
    """float32 logits (B, T, V) of unpacked sequences, with all matmuls in full precision."""
    with jax.default_matmul_precision("highest"):
        return np.asarray(_forward(params, jnp.asarray(tokens_BT), config))


@functools.partial(jax.jit, static_argnames="config")
def _forward(params: dict[str, Any], tokens_BT: jax.Array, config: Architecture) -> jax.Array:
    return model_of(config).logits(hidden_states(params, tokens_BT, config), params, config)


def hidden_states(params: dict[str, Any], tokens_BT: jax.Array, config: Architecture) -> jax.Array:
    """Final hidden states (B, T, D) in float32 of unpacked sequences."""
    batch = {
        "inputs": tokens_BT,
        "segments": jnp.ones(tokens_BT.shape, jnp.int32),
        "positions": jnp.broadcast_to(jnp.arange(tokens_BT.shape[1]), tokens_BT.shape),
    }
    x_BTD: jax.Array = model_of(config).forward(params, batch, config, PLAIN).x_BTD
    return x_BTD


def their_logits(
    folder: Path, tokens_BT: np.ndarray, *, gguf_file: str | None = None
) -> np.ndarray:
    """float32 logits (B, T, V) of the model that transformers loads from `folder`.

    Args:
      gguf_file: name of a GGUF file in `folder` to load it from.

    Raises:
      UserError: as `their_model` does.
    """
    import torch

    model = their_model(folder, "AutoModelForCausalLM", gguf_file)
    with torch.no_grad():
        return model(torch.from_numpy(tokens_BT.astype(np.int64))).logits.numpy()


def their_model(folder: Path, name: str, gguf_file: str | None = None) -> Any:
    """The model that the class `name` of transformers loads from `folder`, in float32.

    Args:
      gguf_file: name of a GGUF file in `folder` to load it from.

    Raises:
      UserError: transformers cannot load it, or reports missing or unexpected tensors.
    """
    import torch
    import transformers

    raw = {} if gguf_file else read_json(folder / "config.json")
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
            gguf_file=gguf_file,
            **dequantised,
            **WITHOUT.get(name, {}),
        )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"transformers cannot load {folder} ({reason}).") from error
    model, info = loaded
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if wrong := [one for one in info[kind] if not of_further_layers(raw, str(one))]:
            names = ", ".join(map(str, sorted(wrong)[:3]))
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


def require_same(difference: float, undone: str, source: str = "") -> None:
    """Raises `UserError` if a difference of logits is above the tolerance.

    Args:
      undone: what did not happen then, such as "exported".
      source: what transformers computed from, where the error must tell.
    """
    if difference > TOLERANCE:
        raise UserError(
            f"transformers computes logits{source} that differ by {difference:.2g} from this "
            f"model's, more than {TOLERANCE:g}: nothing was {undone}."
        )


def max_difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Largest absolute difference; infinite where either is not finite or the shapes differ."""
    if ours.shape != theirs.shape:
        return float("inf")
    difference = float(np.max(np.abs(ours - theirs)))
    return difference if np.isfinite(difference) else float("inf")
