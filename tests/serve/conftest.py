"""One server for all tests: a model that writes Japanese byte by byte, and a random one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from a_server import (
    Running,
    Start,
    cycle_model,
    random_model,
    served,
    start_server,
    tokenizer_of,
)

from llm_jax.data.tokenizers import Tokenizer
from llm_jax.serve.served import Served


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return tokenizer_of()


@pytest.fixture(scope="session")
def running(tokenizer: Tokenizer) -> Iterator[Running]:
    """With the models `cycle`, which has a chat template, and `random`, which has none."""
    models = [
        served("cycle", cycle_model(tokenizer)),
        served("random", random_model(tokenizer)),
    ]
    made, stop = start_server(models, most_body=1 << 20)
    yield made
    stop()


@pytest.fixture
def same_models(running: Running) -> Callable[..., list[Served]]:
    """Makes models for another server, with an engine of its own whose queue is short."""

    def make(queue: int = 8) -> list[Served]:
        return [served("cycle", running.models["cycle"], queue=queue)]

    return make


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a server with settings of its own; it ends with the test."""
    stops: list[Callable[[], None]] = []

    def begin(models: list[Served], **settings: Any) -> Running:
        made, stop = start_server(models, **settings)
        stops.append(stop)
        return made

    yield begin
    for stop in stops:
        stop()


@pytest.fixture(scope="session")
def run_folder(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model `cycle` as a run."""
    from llm_jax.convert.hf_import import write_run

    folder = tmp_path_factory.mktemp("serve") / "tiny"
    folder.mkdir()
    model = cycle_model(tokenizer)
    config = dataclasses.replace(model.run, out=str(folder))
    write_run(folder, config, model.params, tokenizer)
    return folder
