"""Why lm-eval's bits per byte of a text are not those of `llm-jax eval --text`: two differences."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import tiny

from llm_jax.config import DataConfig
from llm_jax.convert import parity
from llm_jax.convert.sample import SAMPLE
from llm_jax.evals.perplexity import Evaluator

WINDOW = 64
MODEL = tiny.model_config(vocab_size=600)


def rolling(tokens: list[int], begin: int, window: int) -> Iterator[tuple[list[int], list[int]]]:
    """lm-eval's `loglikelihood_rolling`: inputs, and the targets that are scored at their end.

    Each token is predicted once. The last window is as long as the others, so that its first
    targets, which were scored before, are context.
    """
    done = 0
    while done < len(tokens):
        count = min(window, len(tokens) - done)
        end = done + count
        start = end - window - 1
        inputs = [begin, *tokens[: end - 1]] if start < 0 else tokens[start : end - 1]
        yield inputs, tokens[done:end]
        done = end


def test_windows_are_those_that_lm_eval_documents():
    assert list(rolling(list(range(10)), -1, 4)) == [
        ([-1, 0, 1, 2], [0, 1, 2, 3]),
        ([3, 4, 5, 6], [4, 5, 6, 7]),
        ([5, 6, 7, 8], [8, 9]),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("tokens", [50, 200])
def test_the_end_of_the_document_and_the_last_window_are_the_difference(tokens, tokenizer):
    params = tiny.parameters(MODEL)
    config = tiny.run_config(
        model=MODEL, data=DataConfig(path="unused", seq_len=WINDOW, batch_size=8)
    )
    text = tokenizer.decode(tokenizer.encode(SAMPLE)[:tokens])
    ids = tokenizer.encode(text)

    def nats(inputs: list[int], targets: list[int]) -> float:
        padded = np.zeros((1, WINDOW), np.int32)
        padded[0, : len(inputs)] = inputs
        logits = parity.our_logits(params, MODEL, padded)[0, : len(inputs)].astype(np.float64)
        logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        return -sum(logs[len(inputs) - len(targets) + i, t] for i, t in enumerate(targets))

    theirs = sum(nats(*one) for one in rolling(ids, tokenizer.bos_id, WINDOW))
    stream = tokenizer.stream([text])
    ours = Evaluator(config, params, tokenizer).stream(
        stream, tokenizer.marks, lambda phase, done, total: None
    )
    assert ours.num_bytes == len(text.encode())
    # Ours begins each window anew, and predicts </s>.
    last = (len(stream) - 2) // WINDOW * WINDOW
    inputs = stream[last:-1].tolist()
    *scored, end = stream[last + 1 :].tolist()
    assert end == tokenizer.eos_id
    anew = nats(inputs, [*scored, end])
    more_context = list(rolling(ids, tokenizer.bos_id, WINDOW))[-1]
    assert more_context[1] == scored
    assert ours.nats == pytest.approx(theirs - nats(*more_context) + anew, rel=1e-5)
    if tokens < WINDOW:  # one window: the end of the document alone
        assert ours.nats - theirs == pytest.approx(nats(inputs, [end]), rel=1e-4)
