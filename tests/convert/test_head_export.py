"""Encoders with heads go out to transformers and come back with the same outputs and training."""

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
from llm_jax.convert import hf_export, hf_model, parity
from llm_jax.convert.others import other_of
from llm_jax.data.tokenizers import Tokenizer
from llm_jax.objectives.labels import seen
from llm_jax.objectives.sentence_pairs import OTHER, TEMPERATURE

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

LABELS = ("no", "ja, 多分", "yes")
BERT = EncoderConfig(vocab_size=600, num_layers=2, d_model=32, num_heads=4, d_ff=48, max_seq_len=96)
MODERN = ModernEncoderConfig(
    vocab_size=600,
    num_layers=2,
    d_model=32,
    num_heads=4,
    d_ff=48,
    max_seq_len=96,
    window=16,
    global_every=2,
)


def with_head(model: Any, head: str) -> Any:
    labels = LABELS if head in ("classify", "tag") else ()
    return dataclasses.replace(model, head=head, labels=labels)


MODELS: dict[str, Any] = {
    f"{name}{end}": with_head(model, head)
    for name, model in (("Bert", BERT), ("ModernBert", MODERN))
    for head, end in (
        ("classify", "ForSequenceClassification"),
        ("tag", "ForTokenClassification"),
        ("answer", "ForQuestionAnswering"),
        ("embed", "Model"),
    )
}


def run_of(model: Any, **changes: Any) -> Any:
    return tiny.run_config(model=model, objective=model.head, **changes)


@pytest.fixture(scope="module")
def folders(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Architecture → its folder, its parameters and what `export` said."""
    made = {}
    for name, model in MODELS.items():
        params, out = tiny.parameters(model, size=0.2), tmp_path_factory.mktemp(name) / "hf"
        said = hf_export.export(run_of(model), 0, params, tokenizer, out, run=out.parent)
        made[name] = (out, params, said)
    return made


@pytest.mark.parametrize("name", MODELS)
def test_a_head_goes_out_and_comes_back(name: str, folders: Any, tokenizer: Tokenizer) -> None:
    out, params, made = folders[name]
    assert (made.architecture, made.notes) == (name, [])
    assert made.max_logit_difference < 1e-4
    model, back = hf_model.read(out)
    assert model == MODELS[name]
    assert jax.tree.all(jax.tree.map(np.array_equal, back, params))
    parity.require_same_names(out, name)
    raw = json.loads((out / "config.json").read_text("utf-8"))
    config = transformers.AutoConfig.from_pretrained(out)
    if model.labels:
        assert config.id2label == dict(enumerate(LABELS))
    else:
        assert "id2label" not in raw
    theirs = transformers.AutoTokenizer.from_pretrained(out)
    both = theirs("one", "two")
    ids = [tokenizer.encode(text) for text in ("one", "two")]
    begin, end = tokenizer.bos_id, tokenizer.eos_id
    assert both["input_ids"] == [begin, *ids[0], end, *ids[1], end]
    if name.startswith("Bert"):
        assert both["token_type_ids"] == [0] * (len(ids[0]) + 2) + [1] * (len(ids[1]) + 1)
    else:
        assert "token_type_ids" not in both


def rows_of(model: Any, b: int, T: int) -> dict[str, np.ndarray]:
    """Random rows, of which the last is padded in its last third."""
    rng = np.random.default_rng(0)
    size = np.full(b, T, np.int32)
    size[-1] = 2 * T // 3

    def ids() -> np.ndarray:
        return rng.integers(3, 600, (b, T), dtype=np.int32)

    if model.head == "embed":
        scores = np.full(b, np.nan, np.float32)
        rows = {"inputs": ids(), "size": size, f"{OTHER}inputs": ids(), f"{OTHER}size": size}
        return rows | {"targets": np.zeros(b, np.int32), "scores": scores}
    rows = {"inputs": ids(), "size": size, "second": np.full(b, T // 2, np.int32)}
    C = max(len(model.labels), 2)
    shape = {"classify": (b,), "tag": (b, T), "answer": (b, 2)}[model.head]
    targets = rng.integers(0, C if model.head != "answer" else T // 2, shape, dtype=np.int32)
    if model.head == "tag":
        targets[:, ::3] = -1
        targets[-1, size[-1] :] = -1
    return rows | {"targets": targets}


def given_of(rows: Any, types: bool, name: str = "") -> dict[str, Any]:
    """What transformers takes for `rows`."""
    names = {"input_ids": "inputs", "attention_mask": "segments"}
    names |= {"token_type_ids": "types"} if types else {}
    return {key: torch.from_numpy(rows[f"{name}{ours}"]).long() for key, ours in names.items()}


def their_loss(model: Any, theirs: Any, rows: Any) -> Any:
    types, targets = isinstance(model, EncoderConfig), torch.from_numpy(rows["targets"]).long()
    given = given_of(rows, types)
    if model.head == "embed":
        units = []
        for name in ("", OTHER):
            one = given_of(rows, types, name)
            inside = one["attention_mask"][..., None]
            x = theirs(**one).last_hidden_state
            units.append(torch.nn.functional.normalize((x * inside).sum(1) / inside.sum(1)))
        logits = units[0] @ units[1].T / TEMPERATURE
        return torch.nn.functional.cross_entropy(logits, torch.arange(len(logits)))
    if model.head == "answer":
        made = theirs(**given)
        mask = given["attention_mask"] == 0
        losses = [
            torch.nn.functional.cross_entropy(logits.masked_fill(mask, -torch.inf), targets[:, i])
            for i, logits in enumerate((made.start_logits, made.end_logits))
        ]
        return sum(losses) / 2
    return theirs(**given, labels=torch.where(targets < 0, -100, targets)).loss


STEPS = [name for name, model in MODELS.items() if name.startswith("Bert") or model.head == "tag"]
"""ModernBERT's layers have a test of their own; each of its heads is the same last layer."""


@pytest.mark.slow
@pytest.mark.parametrize("name", STEPS)
def test_gradients_and_one_adamw_step_of_a_head(name: str, folders: Any) -> None:
    """The loss of padded rows, its gradients, and parameters after a step, beside torch's."""
    out, params, _ = folders[name]
    model, (b, T) = MODELS[name], (3, 24)
    config = run_of(model, optim=optim_config(eps=1e-4))
    data = dataclasses.replace(config.data, seq_len=T, batch_size=b)
    config = dataclasses.replace(config, data=data)
    rows = seen(rows_of(model, b, T))
    rows = seen(rows, name=OTHER) if model.head == "embed" else rows
    loaded = parity.their_model(out, name)
    loss = their_loss(model, loaded, rows)
    loss.backward()
    tables = ("position_embeddings.weight", "token_type_embeddings.weight")
    metrics = require_same_step(
        params, rows, config, loaded, lambda key, p: p.ndim == 2 and not key.endswith(tables)
    )
    assert float(metrics["loss"]) == pytest.approx(loss.item(), abs=1e-5)


@pytest.mark.slow
def test_scores_are_learned_by_squared_differences(folders: Any) -> None:
    from llm_jax.objectives.sentence_pairs import loss, pair_vectors

    model, params = MODELS["BertModel"], folders["BertModel"][1]
    rows = seen(seen(rows_of(model, 3, 24)), name=OTHER)
    rows |= {"scores": np.array([1.0, 0.0, -0.5], np.float32)}
    config = run_of(model)
    a, b = pair_vectors(params, rows, model, parity.PLAIN)
    wanted = np.mean((np.sum(np.asarray(a) * np.asarray(b), axis=1) - rows["scores"]) ** 2)
    found = loss(params, rows, np.float32(1 / 3), config)
    assert float(found.total) == pytest.approx(float(wanted), abs=1e-6)


def test_a_base_model_is_read_without_its_pooler(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """`BertModel` as transformers writes it, with the layer that no vector needs."""
    config = transformers.BertConfig(
        vocab_size=600, hidden_size=32, num_hidden_layers=1, num_attention_heads=4,
        intermediate_size=48, max_position_embeddings=96,
    )  # fmt: skip
    theirs = transformers.BertModel._from_config(config, attn_implementation="eager").eval()
    theirs.save_pretrained(tmp_path)
    model, params = hf_model.read(tmp_path)
    assert model.head == "embed"
    tokens = parity.sample_tokens(tokenizer, model)
    other = other_of(model)
    assert other is not None
    with torch.no_grad():
        wanted = other.theirs(theirs, tokens)
    assert np.abs(other.ours(params, model, tokens) - wanted).max() < 1e-4


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("Bert", {"problem_type": "regression"}, "problem_type 'regression'"),
        ("Bert", {"id2label": {"0": "only"}}, "id2label"),
        ("Bert", {"id2label": {"1": "a", "2": "b"}}, "id2label"),
        ("ModernBert", {"classifier_pooling": "mean"}, "classifier_pooling 'mean'"),
        ("ModernBert", {"classifier_activation": "relu"}, "classifier_activation 'relu'"),
        ("ModernBert", {"classifier_bias": True}, "classifier_bias"),
    ],
)
def test_another_head_is_refused(
    name: str, change: dict[str, Any], words: str, folders: Any
) -> None:
    name = f"{name}ForSequenceClassification"
    raw = json.loads((folders[name][0] / "config.json").read_text("utf-8"))
    other = other_of(MODELS[name])
    assert other is not None
    assert other.from_hf(raw) == MODELS[name]
    with pytest.raises(UserError, match=words):
        other.from_hf(raw | change)
