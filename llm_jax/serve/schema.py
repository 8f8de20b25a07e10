"""Bodies of requests, field by field, with the limits of each.

A field that is not known is an error. Those of OpenAI's that change nothing here are listed in
`Ignored`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

MOST_TEXT = 1 << 22
"""Characters; the limit on the body is usually lower."""
MOST_PROMPTS = 1024
MOST_IDS = 1 << 20
MOST_ANSWERS = 64
MOST_STOPS = 16
MOST_LOGPROBS = 20
COLDEST = 1e-4
"""Temperatures below it are 0, or an error."""

Text = Annotated[str, Field(max_length=MOST_TEXT)]
Id = Annotated[int, Field(ge=0, lt=2**31)]
Ids = Annotated[list[Id], Field(min_length=1, max_length=MOST_IDS, fail_fast=True)]
Texts = Annotated[list[Text], Field(min_length=1, max_length=MOST_PROMPTS, fail_fast=True)]
ListsOfIds = Annotated[list[Ids], Field(min_length=1, max_length=MOST_PROMPTS, fail_fast=True)]
Given = Text | Texts | Ids | ListsOfIds
Stop = Annotated[str, Field(min_length=1, max_length=256)]
Count = Annotated[int, Field(ge=1, lt=2**31)]
Size = Annotated[int, Field(ge=0, lt=2**31)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Bias = Annotated[float, Field(ge=-100, le=100)]


class Body(BaseModel):
    # Protected names begin with model_, which our fields do not.
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Ignored(Body):
    """Fields of OpenAI's that change nothing here."""

    user: Text | None = Field(None, description="without effect")
    metadata: dict[str, str] | None = Field(None, max_length=16, description="without effect")
    store: Literal[False] | None = Field(None, description="nothing is stored")
    service_tier: Literal["auto", "default"] | None = Field(None, description="without effect")


class StreamOptions(Body):
    include_usage: bool | None = None


class Sampled(Ignored):
    """How tokens are chosen, and when a text ends."""

    model: Text = Field(description="name of a model, as /v1/models lists them")
    temperature: float | None = Field(None, ge=0, le=100, description="0 is greedy; default 1")
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=-1, lt=2**31, description="0 and -1 are off")
    min_p: float | None = Field(None, ge=0, le=1)
    repetition_penalty: float | None = Field(None, ge=0.01, le=100)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    logit_bias: dict[str, Bias] | None = Field(None, max_length=1024, description="id → bias")
    seed: Seed | None = Field(None, description="without one, each request has its own")
    n: int | None = Field(None, ge=1, le=MOST_ANSWERS)
    stop: Stop | Annotated[list[Stop], Field(max_length=MOST_STOPS)] | None = None
    stop_token_ids: list[Id] | None = Field(None, max_length=MOST_STOPS)
    ignore_eos: bool | None = None
    min_tokens: Size | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @model_validator(mode="after")
    def _together(self) -> Sampled:
        if self.temperature and self.temperature < COLDEST:
            raise ValueError(f"temperature must be 0, or at least {COLDEST}")
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options needs stream")
        return self


class CompletionBody(Sampled):
    prompt: Given = Field(description="a text, texts, token ids, or lists of token ids")
    max_tokens: Size | None = Field(None, description="default 16; 0 scores the prompt alone")
    echo: bool | None = None
    logprobs: int | None = Field(None, ge=0, le=MOST_LOGPROBS)
    best_of: int | None = Field(None, ge=1, le=MOST_ANSWERS)
    suffix: Literal[""] | None = Field(None, description="text is not made before a suffix")
    add_special_tokens: bool | None = Field(None, description="<s> before a text; default true")


class JsonSchema(Body):
    name: Text
    description: Text | None = None
    json_schema: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = None


class ResponseFormat(Body):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _schema(self) -> ResponseFormat:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError("json_schema belongs to the type json_schema")
        return self


class Part(Body):
    type: Literal["text"]
    text: Text


Parts = Annotated[list[Part], Field(min_length=1, max_length=1024, fail_fast=True)]


class Called(Body):
    name: Text
    arguments: Text


class ToolCall(Body):
    id: Text
    type: Literal["function"]
    function: Called
    index: int | None = None


class Message(Body):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Text | Parts | None = None
    name: Text | None = None
    tool_calls: list[ToolCall] | None = Field(None, min_length=1, max_length=128)
    tool_call_id: Text | None = None
    refusal: Text | None = None

    @model_validator(mode="after")
    def _content(self) -> Message:
        if self.content is None and not self.tool_calls:
            raise ValueError("a message needs content")
        return self


class Function(Body):
    name: Text
    description: Text | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Body):
    type: Literal["function"]
    function: Function


class ChatBody(Sampled):
    messages: list[Message] = Field(min_length=1, max_length=4096, fail_fast=True)
    max_tokens: Count | None = Field(None, description="default: what the context leaves")
    max_completion_tokens: Count | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=MOST_LOGPROBS)
    response_format: ResponseFormat | None = None
    tools: list[Tool] | None = Field(None, max_length=128)
    tool_choice: Literal["auto", "none"] | None = None
    parallel_tool_calls: Literal[True] | None = None
    chat_template_kwargs: dict[str, Any] | None = Field(
        None, max_length=32, description="more variables of the chat template"
    )

    @model_validator(mode="after")
    def _chat(self) -> ChatBody:
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs")
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            raise ValueError("max_tokens and max_completion_tokens are one limit: give one")
        return self


class EmbeddingsBody(Ignored):
    model: Text
    input: Given
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Count | None = Field(None, description="the model's width, or left out")


class TokenizeBody(Body):
    model: Text | None = Field(None, description="default: the first")
    prompt: Text
    add_special_tokens: bool | None = None
    return_token_strs: bool | None = None


class DetokenizeBody(Body):
    model: Text | None = Field(None, description="default: the first")
    tokens: Annotated[list[Id], Field(max_length=MOST_IDS, fail_fast=True)]


BODIES = (
    CompletionBody, ChatBody, Message, Part, ToolCall, Called, Tool, Function, ResponseFormat,
    JsonSchema, StreamOptions, EmbeddingsBody, TokenizeBody, DetokenizeBody,
)  # fmt: skip
FIELDS = {field for body in BODIES for field in body.model_fields} | {"schema"}
"""Every name that a field of a request has."""
