"""A server whose model is split over four devices, started as `serve --tensor 4` does."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import pytest
from task_run import random_run
from verb_calls import call

from llm_jax.convert.describe import describe
from llm_jax.infer import embeddings
from llm_jax.infer.engine.settings import EngineSettings
from llm_jax.language_model import load_model
from llm_jax.runs.model_places import places_of
from llm_jax.serve.opening import load


@pytest.fixture(scope="module")
def folder(tiny_dataset, tmp_path_factory):
    return random_run(tmp_path_factory.mktemp("served") / "run", tiny_dataset)


@pytest.mark.slow
def test_completions_and_vectors_are_those_of_one_device(folder, start):
    alone = load_model(folder)
    before = {id(array) for array in jax.live_arrays()}
    settings = EngineSettings(slots=2, max_len=64, prefill_chunk=16)
    made = load(describe(places_of([str(folder)])[0]), None, settings, tensor=4)
    assert {axis: made.model.mesh.shape[axis] for axis in ("data", "tensor")} == {
        "data": 2, "tensor": 4,
    }  # fmt: skip
    weights = jax.tree.leaves(made.engine.params)
    for device in made.model.mesh.devices.flat:
        parts = [s.data for w in weights for s in w.addressable_shards if s.device == device]
        # A fourth, and the norms.
        assert sum(p.nbytes for p in parts) < 0.27 * sum(w.nbytes for w in weights)
    # What was made meanwhile and is whole on a device is small.
    copied = [
        array for array in jax.live_arrays()
        if id(array) not in before and array.is_fully_replicated
    ]  # fmt: skip
    assert max(array.nbytes for array in copied) <= max(w.nbytes for w in weights) / 4

    running = start([made])
    prompts = ["def main(", "import", "class", "return x"]

    def completion(prompt: str) -> str:
        body = {"model": "run", "prompt": prompt, "max_tokens": 12, "temperature": 0}
        answer = running.post("/v1/completions", **body)
        assert answer.status_code == 200, answer.text
        return answer.json()["choices"][0]["text"]

    with ThreadPoolExecutor(5) as clients:  # vectors are computed beside the engine
        vectors = clients.submit(running.post, "/v1/embeddings", model="run", input=prompts)
        texts = list(clients.map(completion, prompts))
    assert texts == [alone.generate(p, max_tokens=12, temperature=0) for p in prompts]
    found = np.array([row["embedding"] for row in vectors.result().json()["data"]])
    expected = embeddings.of_texts(alone, prompts)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_a_split_that_cannot_be_is_refused_before_a_model_is_read(folder, capsys):
    code, _, err = call(capsys, "serve", folder, "--port", 0, "--tensor", 3, "--dry-run")
    assert code == 2
    assert "--tensor is 3, which does not divide" in err
