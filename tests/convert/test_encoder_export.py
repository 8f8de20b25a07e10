"""Encoders go out to transformers and come back with the same outputs, tensors and training."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import tiny
from beside_torch import optim_config, require_same_step

from llm_jax.config import EncoderConfig, ModernEncoderConfig, UserError
from llm_jax.convert import hf_export, hf_import, hf_model, parity
from llm_jax.convert.others import other_of
from llm_jax.convert.own_tokenizer import tokenizer_of
from llm_jax.data.tokenizers import Tokenizer
from llm_jax.data.tokenizers.mask import mask_id

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

BERT = EncoderConfig(vocab_size=600, num_layers=2, d_model=32, num_heads=4, d_ff=48, max_seq_len=96)
MODELS: dict[str, Any] = {
    "BertForMaskedLM": BERT,
    "BertForPreTraining": dataclasses.replace(BERT, next_sentence=True, activation="gelu"),
    "ModernBertForMaskedLM": ModernEncoderConfig(
        vocab_size=600, num_layers=4, d_model=32, num_heads=4, d_ff=48, max_seq_len=96, window=16
    ),
}


def run_of(model: Any, **changes: Any) -> Any:
    return tiny.run_config(model=model, objective="masked", **changes)


@pytest.fixture(scope="module")
def folders(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Architecture → its folder, its parameters and what `export` said."""
    made = {}
    for name, model in MODELS.items():
        params, out = tiny.parameters(model, size=0.2), tmp_path_factory.mktemp(name) / "hf"
        made[name] = (
            out,
            params,
            hf_export.export(run_of(model), 0, params, tokenizer, out, run=out.parent),
        )
    return made


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_it_goes_out_and_comes_back(name: str, folders: Any, tokenizer: Tokenizer) -> None:
    out, params, made = folders[name]
    assert made.architecture == name
    assert made.max_logit_difference < 1e-4
    model, back = hf_model.read(out)
    assert model == MODELS[name]
    assert jax.tree.all(jax.tree.map(np.array_equal, back, params))
    parity.require_same_names(out, name)
    theirs = transformers.AutoTokenizer.from_pretrained(out)
    assert theirs.mask_token_id == mask_id(tokenizer)
    assert json.loads((out / "config.json").read_text())["architectures"] == [name]
    assert "fill-mask" in (out / "README.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_gradients_and_one_adamw_step(name: str, folders: Any) -> None:
    """The loss over hidden tokens, its gradients, and parameters after a step, beside torch's."""
    out, params, _ = folders[name]
    model, rng = MODELS[name], np.random.default_rng(0)
    b, T, C = 4, 48, 8
    config = run_of(model, optim=optim_config(eps=1e-4))
    config = dataclasses.replace(
        config, data=dataclasses.replace(config.data, seq_len=T, batch_size=b)
    )
    places = np.sort(rng.permuted(np.tile(np.arange(T), (b, 1)), axis=1)[:, :C])
    batch: dict[str, np.ndarray] = {
        "inputs": rng.integers(3, 600, (b, T), dtype=np.int32),
        "segments": np.ones((b, T), np.int32),
        "positions": np.tile(np.arange(T, dtype=np.int32), (b, 1)),
        "places": places.astype(np.int32),
        "targets": rng.integers(3, 600, (b, C), dtype=np.int32),
    }
    batch["targets"][:, -1] = -1
    labels = np.full((b, T), -100, np.int64)
    rows = np.arange(b)[:, None]
    labels[rows, places] = np.where(batch["targets"] < 0, -100, batch["targets"])
    given: dict[str, Any] = {
        "input_ids": torch.from_numpy(batch["inputs"].astype(np.int64)),
        "labels": torch.from_numpy(labels),
    }
    if name == "BertForPreTraining":
        types = (np.arange(T) >= T // 2).astype(np.int32)
        batch |= {"types": np.tile(types, (b, 1)), "other": np.zeros(b, np.int32)}
        given["token_type_ids"] = torch.from_numpy(batch["types"].astype(np.int64))
        given["next_sentence_label"] = torch.zeros(b, dtype=torch.int64)
    theirs = getattr(transformers, name).from_pretrained(out, attn_implementation="eager")
    loss = theirs.eval()(**given).loss
    loss.backward()
    total = loss.item()
    if name == "BertForPreTraining":
        label = given.pop("next_sentence_label")
        made = theirs(**given).seq_relationship_logits
        total -= torch.nn.functional.cross_entropy(made, label).item()
    tables = ("position_embeddings.weight", "token_type_embeddings.weight")
    metrics = require_same_step(
        params, batch, config, theirs, lambda key, p: p.ndim == 2 and not key.endswith(tables)
    )
    assert float(metrics["loss"]) == pytest.approx(total, abs=1e-5)


@pytest.mark.slow
def test_an_imported_run_keeps_its_tokenizers_files(folders: Any, tmp_path: Path) -> None:
    out, params, _ = folders["BertForMaskedLM"]
    tokenizer = tokenizer_of(out)
    imported = hf_import.import_run(out, tmp_path / "run", tokenizer, check=True)
    config, difference = imported.config, imported.max_logit_difference
    assert (config.objective, config.model) == ("masked", BERT)
    assert difference is not None
    assert difference < 1e-4
    again = tmp_path / "again"
    hf_export.export(config, 0, params, tokenizer, again, run=tmp_path / "run")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (again / name).read_bytes() == (out / name).read_bytes()


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("BertForMaskedLM", {"is_decoder": True}, "is_decoder"),
        ("BertForMaskedLM", {"hidden_act": "relu"}, "hidden_act 'relu'"),
        ("BertForMaskedLM", {"hidden_size": "wide"}, "hidden_size"),
        ("BertForMaskedLM", {"hidden_size": 30}, "does not divide"),
        ("BertForMaskedLM", {"strange": 3}, "strange"),
        ("ModernBertForMaskedLM", {"attention_bias": True}, "attention_bias"),
        ("ModernBertForMaskedLM", {"hidden_activation": "silu"}, "hidden_activation"),
    ],
)
def test_another_architecture_is_refused(
    name: str, change: dict[str, Any], words: str, folders: Any
) -> None:
    raw = json.loads((folders[name][0] / "config.json").read_text())
    other = other_of(MODELS[name])
    assert other is not None
    assert other.from_hf(raw) == MODELS[name]
    with pytest.raises(UserError, match=words):
        other.from_hf(raw | change)
