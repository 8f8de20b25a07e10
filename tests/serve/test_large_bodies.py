"""Large bodies: read beside the event loop, and counted before they are read."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from a_server import Running, served, start_server

from llm_jax.serve import bodies, errors, json_size
from llm_jax.serve.json_size import Size, size_of
from llm_jax.serve.schema import CompletionBody

CHARACTERS = 'a猫"\\[]{},:\n/'


def counted(value: Any) -> Size:
    """What `size_of` counts, of a value."""
    if isinstance(value, str):
        return Size(0, 0, 1)
    if not isinstance(value, list | dict):
        return Size(0, 0, 0)
    inner = list(value) + (list(value.values()) if isinstance(value, dict) else [])
    parts = [counted(one) for one in inner]
    commas = max(len(value) - 1, 0) + sum(part.values for part in parts)
    return Size(commas, 1 + sum(p.groups for p in parts), sum(p.strings for p in parts))


def drawn(rng: random.Random, depth: int = 4) -> Any:
    kind = rng.choice(("text", "number", "list", "object") if depth else ("text", "number"))
    if kind == "text":
        return "".join(rng.choices(CHARACTERS, k=rng.randrange(8)))
    if kind == "number":
        return rng.choice((None, True, -1.5e3, 7))
    many = [drawn(rng, depth - 1) for _ in range(rng.randrange(5))]
    return many if kind == "list" else {drawn(rng, 0).__repr__(): one for one in many}


@pytest.mark.parametrize("part", [1, 2, 7, 1 << 18])
def test_values_are_counted_outside_of_strings(part: int, monkeypatch: Any) -> None:
    """Wherever the parts are cut: also between a backslash and what it escapes."""
    monkeypatch.setattr(json_size, "PART", part)
    rng = random.Random(part)
    for _ in range(60):
        value = drawn(rng)
        for ascii_only in (True, False):
            text = json.dumps(value, ensure_ascii=ascii_only, indent=rng.choice((None, 1)))
            found = size_of(text.encode())
            assert found == counted(value)._replace(values=counted(value).values + 1), text


@pytest.fixture(scope="module")
def large(running: Running) -> Iterator[Running]:
    """A server that takes bodies of 4 MB, as `serve` does."""
    models = [served("cycle", running.models["cycle"])]
    made, stop = start_server(models, most_body=4 << 20)
    yield made
    stop()


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ([[]] * (bodies.MOST_GROUPS + 1), "lists and objects"),
        ([{}] * (bodies.MOST_GROUPS + 1), "lists and objects"),
        ([""] * (bodies.MOST_STRINGS + 1), "strings"),
        ({str(i): 0 for i in range(bodies.MOST_STRINGS)}, "strings"),
        ([0] * (bodies.MOST_VALUES + 1), "values"),
    ],
)
def test_too_many_values_are_refused_before_they_are_read(
    large: Running, monkeypatch: Any, value: Any, name: str
) -> None:
    read: list[bytes] = []
    monkeypatch.setattr(
        CompletionBody, "model_validate_json", classmethod(lambda _, given: read.append(given))
    )
    content = json.dumps({"model": "cycle", "prompt": value}, separators=(",", ":")).encode()
    made = post(large, content)
    error = made.json()["error"]
    assert made.status_code == 400 and name in error["message"], error
    assert error["code"] == "body_too_complex" and read == []


def post(running: Running, content: bytes) -> Any:
    headers = {"Content-Type": "application/json"}
    with running.client() as client:
        return client.post("/v1/completions", content=content, headers=headers)


def test_answers_are_written_beside_the_loop(running: Running, monkeypatch: Any) -> None:
    """And a few elements at a time, with the same text as at once."""
    threads: list[str] = []

    def noted(value: Any, *more: Any) -> Any:
        threads.append(threading.current_thread().name)
        return errors.json_response(value, *more)

    for module in ("app", "completions", "chat"):
        monkeypatch.setattr(f"llm_jax.serve.{module}.json_response", noted)
    message = [{"role": "user", "content": "x"}]
    for path, asked in {
        "/v1/completions": {"prompt": ["x"] * 40, "max_tokens": 1, "echo": True, "logprobs": 1},
        "/v1/chat/completions": {"messages": message, "max_tokens": 2},
        "/v1/embeddings": {"input": ["x"] * 40},
        "/tokenize": {"prompt": "猫" * 40},
        "/detokenize": {"tokens": [5] * 40},
    }.items():
        assert running.post(path, model="cycle", **asked).status_code == 200
    assert len(threads) == 5 and all(name.startswith("asyncio_") for name in threads), threads
    for count in (0, 1, errors.PIECE, errors.PIECE + 1, 3 * errors.PIECE):
        value = {
            "n": count,
            "many": [{"猫": [i]} for i in range(count)],
            "in": {"it": [[]] * count},
        }
        assert errors.json_response(value).body == errors.json_text(value).encode()


def test_health_is_answered_while_a_body_is_read(running: Running, monkeypatch: Any) -> None:
    """The reader waits until the answer is here: in the loop's thread it would wait for ever."""
    begun, answered, original = threading.Event(), threading.Event(), bodies.checked
    threads: list[threading.Thread] = []

    def held(model: Any, content: bytes) -> Any:
        threads.append(threading.current_thread())
        begun.set()
        assert answered.wait(20)
        return original(model, content)

    monkeypatch.setattr(bodies, "checked", held)
    content = json.dumps({"model": "cycle", "prompt": "x" * 500_000, "max_tokens": 1}).encode()
    with ThreadPoolExecutor(1) as pool, running.client() as client:
        made = pool.submit(post, running, content)
        assert begun.wait(20)
        assert client.get("/health").status_code == 200
        assert not made.done()
        answered.set()
        error = made.result(60).json()["error"]
    assert error["code"] == "context_length_exceeded"
    assert len(threads) == 1 and threads[0].name.startswith("asyncio_")
