"""The protocol's proof: a tiny BERT behind the interface of the decoder is that of transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import compute_config, relative_error

from llm_jax.config import ComputeConfig, EncoderConfig, ParallelConfig, UserError
from llm_jax.convert.hf_model import read
from llm_jax.convert.others.bert import BERT
from llm_jax.models.protocol import Context, model_of
from llm_jax.parallel.mesh import make_mesh, parameter_sharding

B, T, V = 2, 24, 64
CONFIG = EncoderConfig(vocab_size=V, num_layers=3, d_model=32, num_heads=4, d_ff=48, max_seq_len=40)


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A folder of random weights, and the model of transformers that wrote it."""
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=V,
        num_hidden_layers=3,
        hidden_size=32,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=40,
        initializer_range=0.3,
    )
    model = transformers.BertForMaskedLM._from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0, 0.3)
    folder = tmp_path_factory.mktemp("bert")
    model.save_pretrained(folder)
    return folder, model


def batch() -> dict[str, np.ndarray]:
    """Two pairs of texts; the second ends in six places of padding."""
    rng = np.random.default_rng(0)
    segments = np.ones((B, T), np.int32)
    segments[1, 18:] = 0
    return {
        "inputs": rng.integers(0, V, (B, T), dtype=np.int32),
        "segments": segments,
        "positions": np.tile(np.arange(T, dtype=np.int32), (B, 1)),
        "types": (np.arange(T) >= 10).astype(np.int32) * np.ones((B, 1), np.int32),
    }


def logits(params: Any, given: Any, compute: ComputeConfig) -> jax.Array:
    family = model_of(CONFIG)
    hidden = family.forward(params, given, CONFIG, Context(compute))
    return family.logits(hidden.x_BTD, params, CONFIG)


def test_logits_are_those_of_transformers(theirs: tuple[Path, Any]) -> None:
    torch = pytest.importorskip("torch")
    folder, model = theirs
    config, params = read(folder)
    assert config == CONFIG
    given = batch()
    with torch.no_grad():
        wanted = model(
            input_ids=torch.from_numpy(given["inputs"]).long(),
            attention_mask=torch.from_numpy(given["segments"]).long(),
            token_type_ids=torch.from_numpy(given["types"]).long(),
        ).logits.numpy()
    ours = np.asarray(jax.jit(logits, static_argnums=2)(params, given, compute_config()))
    seen = given["segments"] == 1  # the outputs of padding mean nothing, and differ
    assert np.std(wanted[seen]) > 0.3
    assert np.abs(ours[seen] - wanted[seen]).max() < 2e-5


@pytest.mark.slow
def test_each_position_sees_both_sides_and_no_padding() -> None:
    family = model_of(CONFIG)
    params = family.init(CONFIG, jax.random.key(0))
    given = {name: jnp.asarray(rows[1:]) for name, rows in batch().items()}
    first = logits(params, given, compute_config())
    for place, seen in ((17, True), (20, False)):
        changed = given["inputs"].at[0, place].add(1) % V
        moved = np.asarray(logits(params, given | {"inputs": changed}, compute_config()) - first)
        assert bool(np.abs(moved[0, 0]).max() > 1e-4) is seen


@pytest.mark.slow
def test_a_mesh_computes_the_same() -> None:
    family = model_of(CONFIG)
    params = jax.tree.map(np.asarray, family.init(CONFIG, jax.random.key(0)))
    wanted = jax.jit(logits, static_argnums=2)(params, batch(), compute_config())
    mesh = make_mesh(ParallelConfig(data=2, fsdp=2, tensor=2))
    where = jax.tree_util.tree_map_with_path(
        lambda path, leaf, spec: parameter_sharding(mesh, str(path), leaf.shape, spec.axes),
        params,
        family.specs(CONFIG),
    )
    with jax.set_mesh(mesh):
        split = jax.device_put(params, where)
        ours = jax.jit(logits, static_argnums=2)(
            split, batch(), compute_config(attention="blockwise", remat="full")
        )
    assert relative_error(ours, wanted) < 1e-5


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hidden_act": "relu"}, "hidden_act 'relu'"),
        ({"is_decoder": True}, "is_decoder"),
        ({"hidden_size": 30}, "does not divide"),
    ],
)
def test_another_encoder_is_refused(change: dict[str, Any], words: str) -> None:
    raw = {
        "model_type": "bert",
        "vocab_size": V,
        "num_hidden_layers": 3,
        "hidden_size": 32,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "max_position_embeddings": 40,
        "type_vocab_size": 2,
        "layer_norm_eps": 1e-12,
    }
    assert BERT.from_hf(raw) == CONFIG
    with pytest.raises(UserError, match=words):
        BERT.from_hf(raw | change)
    with pytest.raises(UserError, match="vocab_size"):
        BERT.from_hf({name: value for name, value in raw.items() if name != "vocab_size"})
