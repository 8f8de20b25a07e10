"""Chat templates in their sandbox, special tokens, and calls of tools in a text."""

from __future__ import annotations

import json

import pytest

from llm_jax.config import UserError
from llm_jax.data.tokenizers.sentence_piece import SentencePieceTokenizer
from llm_jax.serve.chat_template import ChatTemplate, from_tokenizer, special_tokens
from llm_jax.serve.errors import ApiError
from llm_jax.serve.tool_calls import ToolCalls

USER = [{"role": "user", "content": "猫"}]
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
    with pytest.raises(ApiError, match=words) as error:
        ChatTemplate(source, "x").text(USER, {})
    assert error.value.status == 400 and error.value.param == "messages"


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
    with pytest.raises(UserError, match="is not one"):
        from_tokenizer(with_files(chat_template_DOT_jinja="{% if %}"))


def test_special_tokens_of_a_template_are_tokens(running) -> None:
    """SentencePiece takes their spelling for text, so the server cuts it out."""
    served = running.server.models.find("cycle")
    tokenizer = served.model.tokenizer
    ids = served.conversation_ids("<s>a猫</s><s>b")
    begin, end = tokenizer.bos_id, tokenizer.eos_id
    assert ids == [begin, *tokenizer.encode("a猫"), end, begin, *tokenizer.encode("b")]


CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": "猫"}}\n</tool_call>'


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize(
    ("text", "shown", "names"),
    [
        ("no call < here", "no call < here", []),
        (f"first {CALL}\n{CALL} last", "first \n last", ["add", "add"]),
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
        assert json.loads(call["function"]["arguments"]) == {"a": 1, "b": "猫"}
