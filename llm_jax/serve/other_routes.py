"""Vectors of texts, and the tokenizer."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

from llm_jax.config import layers_of
from llm_jax.infer.chat_template import special_tokens
from llm_jax.serve.errors import bad
from llm_jax.serve.schema import DetokenizeBody, EmbeddingsBody, TokenizeBody
from llm_jax.serve.served import Served
from llm_jax.serve.to_engine import Prompt, prompts_of


def inputs_of(body: EmbeddingsBody, served: Served) -> list[Prompt]:
    """The texts to embed, all of which fit."""
    width = layers_of(served.model.config).d_model
    if body.dimensions not in (None, width):
        raise bad("dimensions", f"dimensions is {body.dimensions}: the model has {width}.")
    texts = prompts_of(body.input, served, "input", begin=False)
    most = served.model.config.max_seq_len
    for text in texts:
        if len(text.ids) > most:
            raise bad(
                "input", f"A text has {len(text.ids):,} tokens: the model takes {most:,}.",
                "context_length_exceeded",
            )  # fmt: skip
    return texts


def embeddings_answer(
    body: EmbeddingsBody, served: Served, vectors: list[np.ndarray], tokens: int
) -> dict[str, Any]:
    def written(vector: np.ndarray) -> Any:
        if body.encoding_format == "base64":
            return base64.b64encode(vector.astype("<f4").tobytes()).decode()
        return [float(value) for value in vector]

    data = [
        {"object": "embedding", "index": index, "embedding": written(vector)}
        for index, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": data, "model": served.name, "usage": usage}


def tokenize(body: TokenizeBody, served: Served) -> dict[str, Any]:
    tokenizer = served.model.tokenizer
    if body.prompt in tokenizer.special:
        # Clients ask for the ids of special tokens so; some tokenizers take them for text.
        pieces = tokenizer.pieces(range(tokenizer.vocab_size))
        ids = [pieces.index(body.prompt)]
    elif body.prompt:
        begin = body.add_special_tokens is not False
        ids = list(prompts_of(body.prompt, served, "prompt", begin=begin)[0].ids)
    else:
        ids = []
    made = {"count": len(ids), "max_model_len": served.context, "tokens": ids}
    return made | ({"token_strs": tokenizer.pieces(ids)} if body.return_token_strs else {})


def detokenize(body: DetokenizeBody, served: Served) -> dict[str, Any]:
    if not body.tokens:
        return {"prompt": ""}
    (prompt,) = prompts_of(body.tokens, served, "tokens")
    return {"prompt": served.model.tokenizer.decode(prompt.ids)}


def tokenizer_info(served: Served) -> dict[str, Any]:
    template = served.template.source if served.template else None
    return {**special_tokens(served.model.tokenizer), "chat_template": template}
