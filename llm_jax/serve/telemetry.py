"""What Prometheus reads at /metrics, in a registry of the server's own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

if TYPE_CHECKING:
    from llm_jax.serve.making import Answer
    from llm_jax.serve.served import Served

FIRST = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
BETWEEN = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1)
"""Upper ends of the histograms' buckets, in seconds."""


class Telemetry:
    """The counts of one server. All labels are names of its models, and words of the code."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        named: dict[str, Any] = {"registry": self.registry, "namespace": "llm_jax"}
        self._requests = Counter(
            "http_requests", "Answers by path and status.", ["path", "status"], **named
        )
        self._refused = Counter(
            "requests_refused", "Requests without an answer.", ["model", "reason"], **named
        )
        self._finished = Counter(
            "answers", "Finished answers by what ended them.", ["model", "reason"], **named
        )
        self._first = Histogram(
            "time_to_first_token_seconds", "From a request to its first token.", ["model"],
            buckets=FIRST, **named,
        )  # fmt: skip
        self._between = Histogram(
            "time_per_output_token_seconds", "Mean time between the tokens of an answer.",
            ["model"], buckets=BETWEEN, **named,
        )  # fmt: skip

    def watch(self, models: Iterable[Served]) -> None:
        """Reads the state of the models' engines each time that it is asked."""
        self.registry.register(_Engines(list(models)))

    def request(self, path: str, status: int) -> None:
        self._requests.labels(path, str(status)).inc()

    def refused(self, model: str, reason: str) -> None:
        self._refused.labels(model, reason).inc()

    def first_token(self, model: str, seconds: float) -> None:
        self._first.labels(model).observe(seconds)

    def answered(self, model: str, answer: Answer) -> None:
        self._finished.labels(model, str(answer.finish_reason)).inc()
        if len(answer.tokens) > 1:
            between = (answer.last - answer.first) / (len(answer.tokens) - 1)
            self._between.labels(model).observe(between)

    @property
    def text(self) -> bytes:
        return generate_latest(self.registry)


GAUGES = {
    "running": ("requests_running", "Requests in a slot."),
    "waiting": ("requests_waiting", "Requests that wait for a slot."),
    "slots": ("slots", "Requests that can run at once."),
}
COUNTERS = {
    "tokens": ("generated_tokens", "Tokens made."),
    "prompt_tokens": ("prompt_tokens", "Tokens of prompts that were read."),
    "reused_tokens": ("reused_prompt_tokens", "Those that were in the cache already."),
    "drafted": ("drafted_tokens", "Tokens that were drafted."),
    "accepted": ("accepted_tokens", "Drafted tokens that the model accepted."),
    "compiled": ("compiled_programs", "Programs that were compiled."),
}
"""Attribute of the engine's stats → name, help."""


class _Engines:
    """A collector, as Prometheus calls it."""

    def __init__(self, models: list[Served]) -> None:
        self._models = models

    def collect(self) -> Iterator[Any]:
        families = ((GAUGES, GaugeMetricFamily), (COUNTERS, CounterMetricFamily))
        for names, kind in families:
            for attribute, (name, text) in names.items():
                family = kind(f"llm_jax_{name}", text, labels=["model"])
                for served in self._models:
                    value = getattr(served.engine.stats, attribute)
                    family.add_metric([served.name], float(value))
                yield family
