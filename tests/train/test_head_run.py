"""Encoders that learn from labelled examples: resume, meshes, what is inherited and learned."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from tiny import VOCAB, compute_config, optim_config, parameters, relative_error, run_config

from llm_jax.config import (
    CheckpointConfig,
    ConfigError,
    DataConfig,
    EncoderConfig,
    EvalConfig,
    ModernEncoderConfig,
    ParallelConfig,
    RunConfig,
)
from llm_jax.convert.hf_import import write_run
from llm_jax.data.dataset import TokenDataset
from llm_jax.data.labelled.build import LabelSpec, build_examples
from llm_jax.data.tokenizers import Tokenizer
from llm_jax.facts.train_flops import train_flops
from llm_jax.objectives.objective import objective_of
from llm_jax.parallel.mesh import make_mesh
from llm_jax.train.feed import held_out_batches, to_device
from llm_jax.train.inherit import inherited_state
from llm_jax.train.load import load_run
from llm_jax.train.loop import train
from llm_jax.train.metrics import read_metrics
from llm_jax.train.state import abstract_state
from llm_jax.train.step import compile_train_step

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
from classify import bag_of_words, sentences

BERT = EncoderConfig(
    vocab_size=VOCAB, num_layers=2, d_model=32, num_heads=4, d_ff=64, max_seq_len=64,
    next_sentence=True,
)  # fmt: skip
LABELS = ("blue", "red")
CLASSIFIER = dataclasses.replace(BERT, next_sentence=False, head="classify", labels=LABELS)


def build(folder: Path, rows: list[Any], tokenizer: Tokenizer, **changes: Any) -> Path:
    (folder / "examples.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    spec = LabelSpec(inputs=(folder / "examples.jsonl",), tokenizer=tokenizer, **changes)
    build_examples(spec, folder / "data", lambda *_: None, False)
    return folder / "data"


@pytest.fixture(scope="module")
def tokenizer(tiny_dataset: Path) -> Tokenizer:
    return TokenDataset.open(tiny_dataset).tokenizer


@pytest.fixture(scope="module")
def examples(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [{"text": f"{'ab'[i % 2]} is {i}", "label": LABELS[i % 2]} for i in range(60)]
    return build(tmp_path_factory.mktemp("examples"), rows, tokenizer, length=16)


@pytest.fixture(scope="module")
def pairs(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [{"text": f"def f{i}(x)", "text_pair": f"function {i} of x"} for i in range(40)]
    return build(tmp_path_factory.mktemp("pairs"), rows, tokenizer, length=16)


@pytest.fixture(scope="module")
def parent(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that predicts hidden tokens and whether halves belong together."""
    folder = tmp_path_factory.mktemp("parent") / "bert"
    folder.mkdir()
    config = run_config(folder, objective="masked", model=BERT)
    write_run(folder, config, parameters(BERT, size=0.1), tokenizer)
    return folder


def config_of(out: Path | str, dataset: Path | str, **changes: Any) -> RunConfig:
    fields: dict[str, Any] = {
        "objective": "classify",
        "model": CLASSIFIER,
        "data": DataConfig(path=str(dataset), seq_len=16, batch_size=8),
        "checkpoint": CheckpointConfig(every=4, keep_last=3),
        "eval": EvalConfig(every=4, batches=8),
        "steps": 8,
    }
    return run_config(out, dataset, **(fields | changes))


@pytest.mark.slow
def test_fine_tuning_resumes_bitwise(
    tmp_path: Path, examples: Path, parent: Path, capfd: Any
) -> None:
    whole = train(config_of(tmp_path / "whole", examples), init=str(parent))
    said = "".join(capfd.readouterr())
    assert "New for the head, from seed 0: labels/out, labels/out_bias." in said
    assert set(whole["figures"]) == {"accuracy", "macro_f1"}
    assert whole["bits_per_byte"] is None
    part = config_of(tmp_path / "part", examples)
    train(part, init=str(parent), callback=lambda record: record["step"] < 3)
    train(part)
    one, two = (load_run(tmp_path / name) for name in ("whole", "part"))
    assert jax.tree.all(jax.tree.map(np.array_equal, one.params, two.params))
    first, old = load_run(tmp_path / "whole", 0).params, load_run(parent).params
    for name in ("embed", "embed_norm", "blocks"):
        assert jax.tree.all(jax.tree.map(np.array_equal, first[name], old[name])), name
    assert np.array_equal(first["labels"]["pool"], old["pair"]["pool"])
    assert set(first) == {"embed", "embed_norm", "blocks", "labels"}
    records = [*read_metrics(tmp_path / "whole" / "metrics.jsonl")]
    held_out = [r for r in records if r["split"] == "validation"]
    assert [r["step"] for r in held_out] == [0, 4, 8]
    assert held_out[0]["loss"] == pytest.approx(np.log(2), abs=0.3)
    assert all("bits_per_byte" not in r for r in records)


@pytest.mark.slow
@pytest.mark.parametrize("head", ["classify", "embed"])
def test_a_mesh_takes_the_same_step_of_a_head(head: str, examples: Path, pairs: Path) -> None:
    """Negatives of `embed` are those of the whole batch, whichever device has them."""
    model = CLASSIFIER
    if head == "embed":
        model = dataclasses.replace(CLASSIFIER, head="embed", labels=())
    dataset = TokenDataset.open(examples if head == "classify" else pairs)
    after = {}
    for name, parallel in (
        ("one", ParallelConfig()),
        ("eight", ParallelConfig(data=2, fsdp=2, tensor=2)),
    ):
        config = config_of(
            "unused",
            dataset.path,
            model=model,
            objective=head,
            parallel=parallel,
            optim=optim_config(eps=1e-5),
        )
        mesh = make_mesh(parallel, jax.devices()[: 8 if name == "eight" else 1])
        host = held_out_batches(dataset, config, mesh).at(0)
        abstract = abstract_state(config, mesh)
        state = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), abstract)
        state |= {"params": parameters(model, size=0.1)}
        where = jax.tree.map(lambda leaf: leaf.sharding, abstract)
        step = compile_train_step(config, mesh, dataset.tokenizer.token_bytes)
        arrays = objective_of(config).arrays
        made, metrics = step(jax.device_put(state, where), to_device(host, mesh, arrays))
        assert metrics["count"] == (host["targets"] >= 0).sum() > 0
        after[name] = jax.device_get((made["params"], metrics["loss"], metrics["grad_norm"]))
    assert relative_error(after["eight"], after["one"]) < 2e-4


@pytest.mark.slow
def test_an_order_that_no_bag_of_words_sees(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """BERT learns who beat whom; a bag of words cannot. `benchmarks/classify.py` does it larger."""
    from llm_jax.data.tokenizers.training import train as train_tokenizer

    rows = sentences(negations=False)
    own = train_tokenizer([one["text"] for one in rows] * 5, vocab_size=400)
    data = TokenDataset.open(build(tmp_path, rows, own, fraction=0.2))
    model = dataclasses.replace(
        CLASSIFIER, vocab_size=own.vocab_size, d_model=64, d_ff=128, max_seq_len=32
    )
    config = config_of(
        tmp_path / "run",
        data.path,
        model=model,
        steps=200,
        log_every=100,
        parallel=ParallelConfig(data=8, fsdp=1),
        compute=compute_config(scan_layers=False),
        data=DataConfig(
            path=str(data.path), seq_len=data.info["examples"]["length"], batch_size=32
        ),
        optim=optim_config(learning_rate=3e-3, warmup_steps=20),
        checkpoint=CheckpointConfig(every=200),
        eval=EvalConfig(every=200, batches=99),
    )
    accuracy = train(config)["figures"]["accuracy"]
    held_out = {data.tokenizer.decode(row) for row in data.rows("validation")["inputs"]}
    split = [[one for one in rows if (one["text"] in held_out) is keep] for keep in (False, True)]
    assert len(split[1]) == len(held_out) > 100
    assert accuracy > 0.9
    assert bag_of_words(*split) < 0.6


def test_flops_of_a_head() -> None:
    """Those of the encoder, and the head once for each text, or for each token."""
    config = config_of("unused", "unused")
    D, T = 32, 16
    encoder = 2 * (2 * (4 * D * D + 2 * D * 64) + 4 * D * T)
    assert train_flops(config) == 3 * (encoder + 2 * (D * D + 2 * D) / T)
    tags = dataclasses.replace(
        config, model=dataclasses.replace(CLASSIFIER, head="tag"), objective="tag"
    )
    assert train_flops(tags) == 3 * (encoder + 2 * 2 * D)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": dataclasses.replace(CLASSIFIER, labels=("red", "blue"))}, "model.labels is"),
        ({"model": dataclasses.replace(CLASSIFIER, head="tag"), "objective": "tag"}, "'classify'"),
        ({"data": DataConfig(path="HERE", seq_len=32, batch_size=8)}, "set it to 16"),
    ],
)
def test_examples_that_do_not_fit_are_refused(
    changes: Any, words: str, tmp_path: Path, examples: Path
) -> None:
    if "data" in changes:
        changes = {"data": dataclasses.replace(changes["data"], path=str(examples))}
    with pytest.raises(ConfigError, match=words):
        train(config_of(tmp_path / "run", examples, **changes))
    assert not (tmp_path / "run").exists()


def test_a_parent_may_have_been_shorter(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """Rotary positions have no table."""
    short = ModernEncoderConfig(
        vocab_size=VOCAB, num_layers=1, d_model=32, num_heads=4, d_ff=64, max_seq_len=16
    )
    parent = run_config(tmp_path, objective="masked", model=short)
    write_run(tmp_path, parent, parameters(short, size=0.1), tokenizer)
    model = dataclasses.replace(short, max_seq_len=64, head="classify", labels=LABELS)
    data = DataConfig(path="unused", seq_len=32, batch_size=8)
    config = config_of("unused", "unused", model=model, data=data)
    abstract = abstract_state(config, make_mesh(ParallelConfig(), jax.devices()[:1]))
    state = inherited_state(config, abstract, {"run": str(tmp_path), "step": 0})
    old = load_run(tmp_path).params
    assert jax.tree.all(jax.tree.map(np.array_equal, state["params"]["first"], old["first"]))
    assert state["params"]["labels"]["out"].shape == (32, 2)


def test_heads_and_labels_that_do_not_belong_together_are_refused(tiny_dataset: Path) -> None:
    with pytest.raises(ConfigError, match="name 2 to"):
        dataclasses.replace(CLASSIFIER, labels=("one",))
    with pytest.raises(ConfigError, match="whose outputs have none"):
        dataclasses.replace(CLASSIFIER, head="answer")
    with pytest.raises(ConfigError, match="each label needs a name of its own"):
        dataclasses.replace(CLASSIFIER, labels=("a", "a"))
    with pytest.raises(ConfigError, match="next_sentence is True"):
        dataclasses.replace(BERT, head="embed")
    with pytest.raises(ConfigError, match=r"but model\.head is 'masked'"):
        config_of("unused", "unused", model=BERT)
    modern = ModernEncoderConfig(
        vocab_size=64, num_layers=2, d_model=32, num_heads=4, d_ff=64, max_seq_len=64
    )
    assert config_of("unused", "unused", model=modern, objective="masked").model.head == "masked"
    with pytest.raises(ConfigError, match=r"optim\.label_smoothing is 0\.1, but objective"):
        config_of("unused", "unused", optim=optim_config(label_smoothing=0.1))
    with pytest.raises(ConfigError, match=r"holds text: build examples"):
        train(config_of("unused", tiny_dataset))
