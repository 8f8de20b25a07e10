"""Chat templates in their sandbox, special tokens, and calls of tools in a text."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_jax.config import UserError
from llm_jax.data.tokenizers.sentence_piece import SentencePieceTokenizer
from llm_jax.infer.chat_template import ChatTemplate, from_tokenizer, special_tokens
from llm_jax.serve.chat import Chat
from llm_jax.serve.making import Answer, Piece
from llm_jax.serve.schema import ChatBody
from llm_jax.serve.tool_calls import ToolCalls

USER = [{"role": "user", "content": "猫"}]
LOOP, END = "{% for i in range(99999) %}", "{% endfor %}"
CHATML = (
    "{% for message in messages %}\n{% if loop.first and message['role'] != 'system' %}\n"
    "{{- '<|im_start|>system\\nHelp.<|im_end|>\\n' }}\n{%- endif %}\n{% generation %}"
    "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
    "{% endgeneration %}\n{% if loop.index > 9 %}{% break %}{% endif %}\n{% endfor %}\n"
    "{% if add_generation_prompt %}\n{{- '<|im_start|>assistant\\n' }}\n{%- endif %}"
)


def test_a_template_is_rendered_as_transformers_does() -> None:
    made = ChatTemplate(CHATML, "x").text(USER, {})
    assert made == (
        "<|im_start|>system\nHelp.<|im_end|>\n<|im_start|>user\n猫<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    utils = pytest.importorskip("transformers.utils.chat_template_utils")
    theirs, _ = utils.render_jinja_template(
        conversations=[USER], chat_template=CHATML, add_generation_prompt=True
    )
    assert made == theirs[0]
    both = ChatTemplate(CHATML, "x").text(USER, {}, add_prompt=False)
    assert both == made.removesuffix("<|im_start|>assistant\n")
    tools = ChatTemplate("{{ tools | tojson }}{{ extra }}", "x")
    assert tools.text(USER, {}, tools=[{"name": "猫"}], more={"extra": 3}) == '[{"name": "猫"}]3'


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ messages.append(1) }}", "unsafe"),
        ("{{ cycler.__init__.__globals__ }}", "unsafe"),
        ("{% include '/etc/passwd' %}", "no loader"),
        ("{% for i in range(10**9) %}{% endfor %}", "Range too big"),
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ 1 / 0 }}", "division by zero"),
    ],
)
def test_a_template_reaches_nothing(source: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        ChatTemplate(source, "x").text(USER, {})


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (f"{LOOP}{LOOP}{LOOP}{END * 3}", "does not end: it ran for 0.1 s"),
        ("{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}", "does not end|recursion"),
        (f"{LOOP}{'x' * 1000}{END}", "more than 16,777,216 characters"),
        ("{{ 9 ** (9 ** 9) }}", r"\*\* is too large"),
        ("{{ 'x' * 10 ** 12 }}", r"\* is too large"),
        ("{{ 10 ** 12 * [1] }}", r"\* is too large"),
    ],
)
def test_a_template_ends(source: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm_jax.infer.chat_template.MOST_SECONDS", 0.1)
    with pytest.raises(UserError, match=words):
        ChatTemplate(source, "x").text(USER, {})


def test_loops_know_where_they_are() -> None:
    """Also with the clock in them."""
    source = (
        "{% for m in messages recursive %}{{ loop.index }}/{{ loop.length }}{{ loop.last }}"
        "{{ loop.previtem is defined }}{% if m.more %}({{ loop(m.more) }}){% endif %}{% else %}no"
        "{% endfor %}{% for c in 'ab' if c != 'a' %}{{ c * 3 }}{{ 2 ** 3 }}{% endfor %}"
    )
    made = ChatTemplate(source, "x").text([{"more": [{}, {}]}], {})
    assert made == "1/1TrueFalse(1/2FalseFalse2/2TrueTrue)bbb8"
    assert ChatTemplate(source, "x").text([], {}).startswith("no")


def test_where_templates_are_found(tokenizer: SentencePieceTokenizer) -> None:
    def with_files(**files: str) -> SentencePieceTokenizer:
        named = {name.replace("_DOT_", "."): text.encode() for name, text in files.items()}
        return SentencePieceTokenizer(tokenizer.content, named)

    assert from_tokenizer(tokenizer) is None
    several = {"chat_template": [{"name": "tool_use", "template": "t"},
                                 {"name": "default", "template": "d"}]}  # fmt: skip
    roles = {"bos_token": {"content": "<s>"}, "eos_token": "</s>", "pad_token": None}
    settings = json.dumps(several | roles)
    found = from_tokenizer(with_files(tokenizer_config_DOT_json=settings))
    assert found is not None and found.source == "d"
    both = with_files(tokenizer_config_DOT_json=settings, chat_template_DOT_jinja="j")
    found = from_tokenizer(both)
    assert found is not None and found.source == "j"
    assert special_tokens(both) == {"bos_token": "<s>", "eos_token": "</s>"}
    only = json.dumps({"chat_template": [{"name": "tool_use", "template": "t"}]})
    with pytest.raises(UserError, match="tool_use and none called 'default'"):
        from_tokenizer(with_files(tokenizer_config_DOT_json=only))
    with pytest.raises(UserError, match="is not one"):
        from_tokenizer(with_files(chat_template_DOT_jinja="{% if %}"))


def test_special_tokens_of_a_template_are_tokens(running) -> None:
    """SentencePiece takes their spelling for text, so the server cuts it out."""
    served = running.server.models.find("cycle")
    tokenizer = served.model.tokenizer
    ids = served.conversation_ids("<s>a猫</s><s>b")
    begin, end = tokenizer.bos_id, tokenizer.eos_id
    assert ids == [begin, *tokenizer.encode("a猫"), end, begin, *tokenizer.encode("b")]
    many = 200_000  # a client may send so many
    assert served.conversation_ids("<s>" * many) == [begin] * many


CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": "猫"}}\n</tool_call>'


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize(
    ("text", "shown", "names"),
    [
        ("no call < here", "no call < here", []),
        (f"first {CALL}\n{CALL} last", "first last", ["add", "add"]),
        (f"\n\n{CALL}\n\n{CALL}\n", "", ["add", "add"]),
        (f" a\n{CALL} \n b ", " a\nb ", ["add"]),
        (f"a{CALL}\n\nb", "a\n\nb", ["add"]),
        (f"{CALL}\nb\n", "b\n", ["add"]),
        (" \n no call \n", " \n no call \n", []),
        (CALL.replace("猫", "</tool_call>"), "", ["add"]),
        (CALL.replace("猫", '\\"</tool_call>'), "", ["add"]),
        (CALL.removesuffix("</tool_call>"), "", ["add"]),
        ("<tool_call>not JSON</tool_call>!", "<tool_call>not JSON</tool_call>!", []),
        ("<tool_call>{}", "<tool_call>{}", []),
        ("x <tool_ca", "x <tool_ca", []),
    ],
)
def test_calls_are_taken_out_of_the_text(
    text: str, shown: str, names: list[str], size: int
) -> None:
    calls = ToolCalls()
    parts = [calls.feed(text[i : i + size]) for i in range(0, len(text), size)]
    assert "".join(parts) + calls.end() == shown
    assert [call["function"]["name"] for call in calls.found] == names
    for call in calls.found:
        assert json.loads(call["function"]["arguments"])["a"] == 1


PIECES = st.lists(
    st.sampled_from([
        CALL, "<tool_call>", "</tool_call>", "<tool", "_call>", "{", "}", '"', "\\", " ", "\n",
        "猫", '{"name": "f"}', '"</tool_call>"', "</tool_call",
    ]),
    max_size=12,
).map("".join)  # fmt: skip


def calls_of(calls: ToolCalls) -> list[dict[str, str]]:
    return [call["function"] for call in calls.found]


@given(text=PIECES, cuts=st.lists(st.integers(0, 200), max_size=12))
@settings(max_examples=400, deadline=None, database=None, derandomize=True)
def test_calls_and_text_do_not_depend_on_how_the_text_is_cut(text: str, cuts: list[int]) -> None:
    whole = ToolCalls()
    expected = whole.feed(text) + whole.end()
    places = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    for parts in (list(text), [text[a:b] for a, b in itertools.pairwise(places)]):
        calls = ToolCalls()
        assert "".join(map(calls.feed, parts)) + calls.end() == expected
        assert calls_of(calls) == calls_of(whole)
    if not whole.found:
        assert expected == text


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
@pytest.mark.parametrize(
    "text", [f"I add.\n\n{CALL}\n{CALL}\n", f"\n{CALL}", "no call\n", CALL[:-30]]
)
def test_a_streamed_message_is_the_whole_one(running, text: str, size: int) -> None:
    """Content, calls and the reason of its end, from the pieces to the fields of the answer."""
    tool = {"type": "function", "function": {"name": "add"}}
    body = ChatBody.model_validate(
        {"model": "cycle", "messages": [{"role": "user", "content": "x"}], "tools": [tool]}
    )
    chat = Chat(body, running.server.models.find("cycle"))
    answer = Answer(chat.requests[0], text=text, finish_reason="stop")
    whole = chat._choice(0, answer)
    parts = [text[i : i + size] for i in range(0, len(text), size)]

    class Given:
        answers: ClassVar = [answer]

        async def __aenter__(self) -> None: ...
        async def __aexit__(self, *_: object) -> None: ...

        async def pieces(self) -> AsyncIterator[Piece]:
            for part in parts:
                yield Piece(0, part, [], None)
            yield Piece(0, "", [], "stop")

    async def streamed() -> list[Any]:
        return [chunk["choices"][0] async for chunk in chat._chunks(Given())]  # type: ignore[arg-type]

    chunks = asyncio.run(streamed())
    content = "".join(chunk["delta"].get("content", "") for chunk in chunks)
    calls = [call for chunk in chunks for call in chunk["delta"].get("tool_calls", [])]
    message = whole["message"]
    assert content == (message["content"] or "")
    assert [call["function"] for call in calls] == [
        call["function"] for call in message.get("tool_calls", [])
    ]
    assert chunks[-1]["finish_reason"] == whole["finish_reason"]
