"""One server for all tests: a model that writes Japanese byte by byte, and a random one."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx
import jax
import numpy as np
import tiny

from llm_jax.data.tokenizers import Tokenizer
from llm_jax.data.tokenizers.training import train
from llm_jax.infer.chat_template import ChatTemplate
from llm_jax.infer.engine.engine import Engine
from llm_jax.infer.engine.settings import EngineSettings
from llm_jax.language_model import LanguageModel
from llm_jax.serve import listen
from llm_jax.serve.app import Server
from llm_jax.serve.served import Served
from llm_jax.serve.settings import Settings

CONTEXT = 96
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'refused' %}"
    "{{ raise_exception('no') }}{% endif %}{{ message['role'] }}: {{ message['content'] }}\n"
    "{% endfor %}{% if tools %}{{ tools | tojson }}{% endif %}{% if add_generation_prompt %}a: "
    "{% endif %}"
)
CYCLE = "吾輩は猫xyz"
"""What `cycle` writes again and again. All its bytes are distinct."""


def tokenizer_of() -> Tokenizer:
    """No character of Japanese is in it, so each comes as three bytes."""
    return train(["def main(argument): return argument + 1\n" * 20], vocab_size=300)


def random_model(tokenizer: Tokenizer) -> LanguageModel:
    model = tiny.model_config(vocab_size=304, d_model=64, max_seq_len=CONTEXT)
    params = jax.device_get(tiny.parameters(model, size=0.2))
    return LanguageModel(tiny.run_config(model=model), params, tokenizer)


def cycle_model(tokenizer: Tokenizer) -> LanguageModel:
    """After each byte of `CYCLE` the next one is likely, whatever was before."""
    made = random_model(tokenizer)
    params = jax.tree.map(np.array, made.params)
    params["blocks"] = jax.tree.map(lambda leaf: leaf * 0.1, params["blocks"])
    rng = np.random.default_rng(0)
    rows = rng.standard_normal(params["embed"]["tokens"].shape).astype(np.float32)
    params["embed"]["tokens"] = rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    params["final_norm"]["scale"][:] = 1.0
    ids = tokenizer.encode(CYCLE)
    params["unembed"] = 0.05 * rng.standard_normal(params["unembed"].shape).astype(np.float32)
    for here, after in zip(ids, [*ids[1:], ids[0]], strict=True):
        params["unembed"][:, after] = rows[here]
    params["unembed"][:, ids[0]] += rows[tokenizer.bos_id]
    return dataclasses.replace(made, params=params)


def served(name: str, model: LanguageModel, **settings: Any) -> Served:
    engine = Engine(model, EngineSettings(**({"slots": 4, "prefill_chunk": 32} | settings)))
    template = ChatTemplate(TEMPLATE, "test") if name != "random" else None
    return Served(name, "nowhere", model, engine, template, CONTEXT)


@dataclass
class Running:
    """A server in a thread of the tests' process."""

    url: str
    server: Server
    models: dict[str, LanguageModel]
    loop: listen.Loop

    @property
    def address(self) -> tuple[str, int]:
        """For sockets."""
        host, _, port = self.url.removeprefix("http://").rpartition(":")
        return host, int(port)

    def client(self, **more: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=60, **more)

    def post(self, path: str, **body: Any) -> httpx.Response:
        with self.client() as client:
            return client.post(path, json=body)

    def complete(self, **body: Any) -> dict[str, Any]:
        """The answer of /v1/completions, by default greedy from `cycle`."""
        made = self.post("/v1/completions", **({"model": "cycle", "temperature": 0} | body))
        assert made.status_code == 200, made.text
        return made.json()


Start = Callable[..., Running]


def start_server(models: list[Served], **settings: Any) -> tuple[Running, Callable[[], None]]:
    chosen = Settings(**({"port": 0} | settings))
    opened = listen.listen(chosen)
    server = Server(models, chosen)
    loop = listen.Loop(server)
    thread = threading.Thread(
        target=lambda: asyncio.run(loop.serve(sockets=list(opened.sockets))), daemon=True
    )
    thread.start()
    while not loop.started:
        assert thread.is_alive()
        time.sleep(0.01)

    def stop() -> None:
        loop.should_exit = True
        thread.join(20)
        opened.close()

    by_name = {one.name: one.model for one in models}
    return Running(opened.urls[0], server, by_name, loop), stop
