"""The application: its routes, each a few lines, and what they share."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from fastapi import FastAPI, Request
from starlette.responses import Response

from llm_jax import __version__
from llm_jax.infer.embeddings import batches
from llm_jax.serve import errors, other_routes, page
from llm_jax.serve.bodies import BodyRoute
from llm_jax.serve.chat import Chat
from llm_jax.serve.completions import Completion
from llm_jax.serve.errors import ApiError, json_response
from llm_jax.serve.events import Gone, unless_gone
from llm_jax.serve.gate import Gate
from llm_jax.serve.making import Making
from llm_jax.serve.schema import (
    ChatBody,
    CompletionBody,
    DetokenizeBody,
    EmbeddingsBody,
    TokenizeBody,
)
from llm_jax.serve.served import Models, Served
from llm_jax.serve.settings import Settings
from llm_jax.serve.telemetry import Telemetry

CLIENT_LEFT = 499
"""Nobody reads this status; it is counted."""
REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"description": text}
    for status, text in {
        400: "A field is wrong.",
        401: "The key is missing or wrong.",
        403: "The request names another host than this machine.",
        404: "There is no such model.",
        408: "The head or the body did not arrive in time.",
        413: "The body is too large.",
        415: "The body is not JSON, or compressed.",
        429: "The queue is full.",
        500: "The model computes no finite numbers, or the server has a fault.",
        503: "The server is shutting down, an engine has stopped, or it has too many connections.",
        504: "The answer took too long.",
    }.items()
}


class Server:
    """The application of some models, behind its gate.

    Attributes:
      gate: the ASGI application.
    """

    def __init__(self, served: Sequence[Served], settings: Settings) -> None:
        self.models, self.settings = Models(served), settings
        self.telemetry = Telemetry()
        self.telemetry.watch(self.models)
        # JAX compiles and computes embeddings in one thread, beside the engines' threads.
        self._vectors = ThreadPoolExecutor(1, "embeddings")
        self.app = FastAPI(
            title="llm-jax", version=__version__, docs_url=None, redoc_url=None,
            lifespan=self._lifespan,
        )  # fmt: skip
        self.app.router.route_class = BodyRoute
        errors.install(self.app)
        _add_generating_routes(self.app, self)
        _add_other_routes(self.app, self)
        self.gate = Gate(self.app, settings, self.telemetry)

    @contextlib.asynccontextmanager
    async def _lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        for served in self.models:
            served.engine.start()
        try:
            yield
        finally:
            self._vectors.shutdown(cancel_futures=True)
            for served in self.models:
                await asyncio.to_thread(served.engine.close, drain=False)

    def making(self, served: Served, work: Completion | Chat, stop: Sequence[str]) -> Making:
        return Making(
            served,
            work.requests,
            stop=stop,
            seconds=self.settings.seconds,
            telemetry=self.telemetry,
        )

    async def vectors(self, served: Served, body: EmbeddingsBody) -> Response:
        """Embeds batch after batch, so that one client does not hold the thread from the others."""
        texts = await asyncio.to_thread(other_routes.inputs_of, body, served)
        loop, found = asyncio.get_running_loop(), dict[int, np.ndarray]()
        made = batches(served.model, [text.ids for text in texts])
        try:
            async with asyncio.timeout(self.settings.seconds):
                while batch := await loop.run_in_executor(self._vectors, served.next_vectors, made):
                    found |= zip(*batch, strict=True)
        except TimeoutError:
            seconds = self.settings.seconds
            raise ApiError(504, f"It took more than {seconds:g} s.", None, "timeout") from None
        vectors = [found[place] for place in range(len(texts))]
        tokens = sum(len(text.ids) for text in texts)
        return await asyncio.to_thread(
            lambda: json_response(other_routes.embeddings_answer(body, served, vectors, tokens))
        )


def _add_generating_routes(app: FastAPI, server: Server) -> None:
    @app.post("/v1/completions", responses=REFUSALS)
    async def completions(body: CompletionBody, request: Request) -> Response:
        served = server.models.find(body.model)
        # Tokenising a long text takes a while, and must not stop the other streams.
        work = await asyncio.to_thread(Completion, body, served)
        return await work.respond(request, server.making(served, work, work.stops))

    @app.post("/v1/chat/completions", responses=REFUSALS)
    async def chat(body: ChatBody, request: Request) -> Response:
        served = server.models.find(body.model)
        work = await asyncio.to_thread(Chat, body, served)
        return await work.respond(request, server.making(served, work, work.stops))

    @app.post("/v1/embeddings", responses=REFUSALS)
    async def embeddings(body: EmbeddingsBody, request: Request) -> Response:
        served = server.models.find(body.model)
        return await unless_gone(request, server.vectors(served, body))

    @app.exception_handler(Gone)
    async def left(request: Request, error: Gone) -> Response:
        return Response(status_code=CLIENT_LEFT)


def _add_other_routes(app: FastAPI, server: Server) -> None:
    @app.get("/v1/models")
    async def models() -> Response:
        listed = [_described(served) for served in server.models]
        return json_response({"object": "list", "data": listed})

    @app.get("/v1/models/{name:path}", responses={404: REFUSALS[404]})
    async def model(name: str) -> Response:
        return json_response(_described(server.models.find(name)))

    @app.post("/tokenize", responses=REFUSALS)
    async def tokenize(body: TokenizeBody) -> Response:
        served = server.models.find(body.model)
        return await asyncio.to_thread(lambda: json_response(other_routes.tokenize(body, served)))

    @app.post("/detokenize", responses=REFUSALS)
    async def detokenize(body: DetokenizeBody) -> Response:
        served = server.models.find(body.model)
        return await asyncio.to_thread(lambda: json_response(other_routes.detokenize(body, served)))

    @app.get("/tokenizer_info", responses={404: REFUSALS[404]})
    async def tokenizer_info(model: str | None = None) -> Response:
        return json_response(other_routes.tokenizer_info(server.models.find(model)))

    @app.get("/health", responses={503: REFUSALS[503]})
    async def health() -> Response:
        if server.gate.draining:
            return json_response({"status": "draining"}, 503)
        if stopped := [served.name for served in server.models if served.engine.closed]:
            return json_response({"status": "stopped", "models": stopped}, 503)
        return json_response({"status": "ok"})

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(server.telemetry.text, media_type="text/plain; version=0.0.4")

    @app.get("/", include_in_schema=False)
    async def root() -> Response:
        return page.response()


def _described(served: Served) -> dict[str, Any]:
    """A model as /v1/models lists it, with what the page at `/` needs to know."""
    return {
        "id": served.name,
        "object": "model",
        "created": served.created,
        "owned_by": "llm-jax",
        "max_model_len": served.context,
        "chat": served.template is not None,
        "step": served.model.step,
    }
