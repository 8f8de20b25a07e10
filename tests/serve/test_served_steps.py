"""Two checkpoints of one run beside each other, from training to answers."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import tiny
from a_server import Start, tokenizer_of
from verb_calls import call_json

from llm_jax.config import CheckpointConfig, EvalConfig, RecurrentConfig, RunConfig
from llm_jax.convert.describe import describe
from llm_jax.infer import embeddings
from llm_jax.infer.engine.engine import Engine
from llm_jax.infer.engine.settings import EngineSettings
from llm_jax.language_model import LanguageModel, load_model
from llm_jax.runs.model_places import places_of
from llm_jax.serve import opening
from llm_jax.train.loop import train

STEPS = (2, 3)
SETTINGS = EngineSettings(slots=2, max_len=64, prefill_chunk=16)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_dataset: Path) -> RunConfig:
    config = tiny.run_config(
        tmp_path_factory.mktemp("steps") / "first",
        tiny_dataset,
        steps=3,
        model=tiny.model_config(vocab_size=tiny.VOCAB, tie_embeddings=True),
        optim=tiny.optim_config(learning_rate=0.03),
        checkpoint=CheckpointConfig(every=1, keep_last=9),
        eval=EvalConfig(every=100, batches=1),
    )
    train(config)
    return config


@pytest.mark.slow
def test_two_steps_of_a_run_are_served_by_name(run: RunConfig, start: Start) -> None:
    places = places_of([f"{run.out}@{step}" for step in STEPS])
    running = start([opening.load(describe(place), None, SETTINGS) for place in places])
    with running.client() as client:
        listed = client.get("/v1/models").json()["data"]
        assert [(one["id"], one["step"]) for one in listed] == [("first@2", 2), ("first@3", 3)]
        assert client.get("/v1/models/first@3").json()["step"] == 3
        found = {}
        for step in STEPS:
            model = load_model(run.out, step)
            ids = model.tokens("def main(argument):")
            logits = model.logits(ids).astype(np.float64)[:, : model.tokenizer.vocab_size]
            expected = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
            name = f"first@{step}"
            asked = {"model": name, "prompt": ids, "echo": True, "logprobs": 0, "max_tokens": 0}
            made = client.post("/v1/completions", json=asked).json()["choices"][0]["logprobs"]
            found[step] = np.array(made["token_logprobs"][1:])
            true = expected[np.arange(len(ids) - 1), ids[1:]]
            np.testing.assert_allclose(found[step], true, atol=1e-4)
            text = client.post(
                "/v1/completions",
                json={"model": name, "prompt": "def main(", "max_tokens": 20, "temperature": 0},
            ).json()["choices"][0]["text"]
            assert text == model.generate("def main(", max_tokens=20, temperature=0)
            # Of the engine's parameters, since those that were read are free by now.
            asked = {"model": name, "input": ["def main(", "return"]}
            rows = client.post("/v1/embeddings", json=asked).json()["data"]
            vectors = embeddings.of_texts(model, asked["input"])
            np.testing.assert_allclose([row["embedding"] for row in rows], vectors, atol=1e-5)
        assert np.abs(found[2] - found[3]).max() > 1e-3
        gone = client.post("/v1/completions", json={"model": "first@1", "prompt": "x"})
        assert gone.status_code == 404 and "first@" in gone.json()["error"]["message"]


@pytest.mark.slow
def test_the_verb_takes_two_steps_of_a_run(run: RunConfig, capsys) -> None:
    words = [f"{run.out}@{step}" for step in STEPS]
    made = call_json(capsys, "serve", *words, "--dry-run", "--port", "0")
    assert made["models"] == ["first@2", "first@3"]
    assert set(made["folders"].values()) == {run.out}


@pytest.mark.slow
@pytest.mark.parametrize("weights", ["run", "int8"])
def test_vectors_of_a_recurrent_models_parameters_as_the_engine_has_them(weights: str) -> None:
    config = RecurrentConfig(vocab_size=304, num_layers=2, d_model=32, max_seq_len=96)
    params = tiny.parameters(config, size=0.2)
    model = LanguageModel(tiny.run_config(model=config), params, tokenizer_of())
    engine = Engine(model, dataclasses.replace(SETTINGS, weights=weights))
    texts = ["def main", "猫"]
    found = embeddings.of_texts(dataclasses.replace(model, params=engine.params), texts)
    expected = embeddings.of_texts(model, texts)
    limit = 1e-6 if weights == "run" else 0.02
    assert np.abs(found - expected).max() <= limit * np.abs(expected).max()


@pytest.mark.slow
def test_parameters_are_held_once(run: RunConfig) -> None:
    said = describe(places_of([f"{run.out}@3"])[0])
    served = opening.load(said, None, SETTINGS)
    engine, model = served.engine, run.model
    assert served.model.params is engine.params
    # A tied table is transposed besides, and everything else is there once.
    read = load_model(run.out, 3).params
    count = sum(leaf.size for leaf in tiny.jax.tree.leaves(read))
    table = model.vocab_size * model.d_model
    assert engine.memory.parameters == 4 * (count + table)
    per_token = 2 * model.num_layers * model.num_kv_heads * model.head_dim * 4
    assert engine.memory.cache == SETTINGS.slots * 64 * per_token
    with_draft = opening.load(
        said, None, dataclasses.replace(SETTINGS, speculate=2), draft=said
    ).engine.memory
    assert with_draft == type(with_draft)(*(2 * value for value in engine.memory))
