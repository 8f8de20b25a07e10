"""Stop strings over any cuts into tokens, Japanese bytes, and what is held back."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_jax.config import UserError
from llm_jax.data.tokenizers import Tokenizer
from llm_jax.data.tokenizers.training import train
from llm_jax.infer.completion_text import TextFeed, complete
from llm_jax.infer.engine.engine import Engine
from llm_jax.infer.engine.request import Request
from llm_jax.infer.engine.settings import EngineSettings
from llm_jax.infer.sampling import Sampling
from llm_jax.language_model import LanguageModel


@pytest.fixture(scope="module")
def pieces() -> Tokenizer:
    """Whole words of English are single tokens; each Japanese character is three."""
    return train(["the end of the line and the end of it all\n" * 30], vocab_size=300)


def fed(tokenizer: Tokenizer, text: str, stop: tuple[str, ...]) -> tuple[list[str], TextFeed]:
    """What each token of `text` shows, and the rest."""
    feed, shown = TextFeed(tokenizer, stop), []
    for token in tokenizer.encode(text):
        new, done = feed.feed(SimpleNamespace(id=token))
        shown.append(new)
        if done:
            break
    return [*shown, feed.end()], feed


def test_a_stop_string_over_tokens_is_never_shown(pieces):
    shown, feed = fed(pieces, "abc猫と犬xyz", ("猫と犬",))
    assert ("".join(shown), feed.text, feed.stopped_by) == ("abc", "abc", "猫と犬")
    assert feed.feed(SimpleNamespace(id=pieces.encode("x")[-1])) == ("", True)
    assert feed.end() == "" and feed.text == "abc"


def test_only_what_may_be_a_beginning_is_held_back(pieces):
    shown, _ = fed(pieces, "a猫と鳥", ("猫と犬", "zz"))
    # Nine tokens of bytes after the a: 猫 and 猫と are held until 鳥 refutes them.
    assert shown == ["a", *[""] * 8, "猫と鳥", ""]
    assert fed(pieces, "a猫と", ("猫と犬",))[0][-1] == "猫と"
    assert fed(pieces, "a猫", ())[0] == ["a", "", "", "猫", ""]


def test_a_token_with_more_than_the_stop_string_is_cut(pieces):
    assert len(pieces.encode("the end")) < len("the end")
    assert fed(pieces, "at the end of it", ("he en",))[1].text == "at t"


@settings(max_examples=200, deadline=None)
@given(
    st.text(alphabet="ab猫 ", max_size=20),
    st.lists(st.text(alphabet="ab猫 ", min_size=1, max_size=4), max_size=3),
    st.booleans(),
)
def test_the_string_that_is_complete_first_ends_the_text(pieces, text, stop, words):
    """Whatever the tokens: character by character it is the same."""
    ends = [(text.find(one) + len(one), text.find(one)) for one in stop if one in text]
    wanted = text[: min(ends)[1]] if ends else text
    if words:
        shown, feed = fed(pieces, text, tuple(stop))
    else:
        shown, feed = [], TextFeed(pieces, stop)
        for byte in text.encode():
            token = next(i for i in range(300) if pieces.pieces([i]) == [f"<0x{byte:02X}>"])
            shown.append(feed.feed(SimpleNamespace(id=token))[0])
        shown.append(feed.end())
    assert "".join(shown) == feed.text == wanted
    assert (feed.stopped_by is not None) == bool(ends)


def test_a_character_that_is_cut_off_and_an_empty_stop_string(pieces):
    feed = TextFeed(pieces, ("\ufffd!",))
    assert feed.feed(SimpleNamespace(id=pieces.encode("猫")[-2])) == ("", False)
    assert feed.end() == feed.text == "\ufffd"
    with pytest.raises(UserError, match="stop string is empty"):
        TextFeed(pieces, ("a", ""))


@pytest.mark.slow
@pytest.mark.parametrize("running", [False, True])
def test_answers_of_an_engine_end_at_their_stop_strings(pieces, running):
    config = tiny.model_config(vocab_size=304)
    model = LanguageModel(tiny.run_config(model=config), tiny.parameters(config), pieces)
    engine = Engine(model, EngineSettings(slots=4, prefill_chunk=16))
    prompts = [(pieces.bos_id,), (pieces.bos_id, *pieces.encode("the end"))]
    requests = [
        Request(prompt=prompt, max_tokens=40, sampling=Sampling(), seed=5, log_probs=1)
        for prompt in prompts
    ]
    free = complete(engine, pieces, requests, n=2)
    assert [one.finish_reason for answers in free for one in answers] == ["length"] * 4
    assert free[0][0].text != free[0][1].text
    stop = free[0][1].text[10:12]
    assert free[0][1].text.find(stop) > 2
    if running:
        engine.start()
    cut = complete(engine, pieces, requests, [[stop], []], n=2)
    for mine, whole in zip(cut[0], free[0], strict=True):
        assert mine.text == whole.text.split(stop)[0]
        assert (mine.stopped_by == stop) == (stop in whole.text)
        assert mine.finish_reason == ("stop" if mine.stopped_by else "length")
    short, long = cut[0][1].tokens, free[0][1].tokens
    assert [one.id for one in short] == [one.id for one in long[: len(short)]]
    assert 0 < len(short) < 40 and all(one.log_prob is not None for one in short)
    assert [one.text for one in cut[1]] == [one.text for one in free[1]]
    engine.close()
