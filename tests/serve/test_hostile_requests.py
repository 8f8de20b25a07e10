"""Requests that schemathesis makes of the OpenAPI document, valid and not: no answer is a 5xx.

LLM_JAX_HOSTILE_REQUESTS=3000 makes that many.
"""

from __future__ import annotations

import collections
import os
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

REQUESTS = int(os.environ.get("LLM_JAX_HOSTILE_REQUESTS", "150"))
MOST_TOKENS = 8


def nearer(body: Any, number: int) -> Any:
    """A body with a model that exists, in three of four, and few tokens: else most end at 404."""
    if not isinstance(body, dict) or number % 4 == 3:
        return body
    body = body | {"model": ("cycle", "random")[number % 2]}
    for name in ("max_tokens", "max_completion_tokens"):
        if isinstance(body.get(name), int):
            body[name] = min(body[name], MOST_TOKENS)
    return body


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_no_request_is_an_error_of_the_server(running: Any) -> None:
    schemathesis = pytest.importorskip("schemathesis")
    schema = schemathesis.openapi.from_url(f"{running.url}/openapi.json")
    operations = [found.ok() for found in schema.get_all_operations()]
    assert {one.path for one in operations} >= {
        "/v1/completions", "/v1/chat/completions", "/v1/embeddings", "/v1/models", "/tokenize",
        "/detokenize", "/health", "/metrics",
    }  # fmt: skip
    with_body = [one for one in operations if one.method == "post"]
    seen: collections.Counter[int] = collections.Counter()
    numbers = iter(range(10**9))

    def try_all(operation: Any, mode: Any, count: int) -> None:
        @seed(0)
        @settings(
            max_examples=count, deadline=None, database=None, phases=(Phase.generate,),
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(case=operation.as_strategy(generation_mode=mode))
        def one(case: Any) -> None:
            case.body = nearer(case.body, next(numbers))
            made = case.call(base_url=running.url, timeout=60)
            seen[made.status_code] += 1
            assert made.status_code < 500, (case.as_curl_command(), made.text)
            if made.status_code >= 400 and made.request.method != "HEAD":
                assert set(made.json()["error"]) == {"message", "type", "param", "code"}

        one()

    modes = list(schemathesis.GenerationMode)
    for operation in operations:
        for mode in modes:
            if operation in with_body:
                try_all(operation, mode, max(1, REQUESTS // len(modes) // len(with_body)))
            elif mode.value == "positive":
                try_all(operation, mode, 2)
    assert seen.total() >= REQUESTS * 0.6, "some operations have fewer bodies than are asked for"
    assert seen[200] > 20 and seen[400] > 20
    with running.client() as client:
        assert client.get("/health").status_code == 200
