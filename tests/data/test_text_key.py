"""The text of a record: a field, a path or a template; and the metadata that travels with it."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from llm_jax.config import UserError
from llm_jax.data.sources.left_out import Unusable
from llm_jax.data.sources.text_key import TextKey, metadata_names, metadata_of

RECORD: dict[str, Any] = {
    "text": "plain",
    "data": {"body": "inner", "parts": [{"t": "first"}, {"t": "second"}], "n": 7},
    "a.b": "dots in a name",
    "title": "Title",
    "score": 0.5,
    "flag": True,
    "none": None,
}


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("text", "plain"),
        ("data.body", "inner"),
        ("data.parts.1.t", "second"),
        ("a.b", "dots in a name"),
        ("{title}: {data.body}", "Title: inner"),
        (r"{title}\n\n{text}", "Title\n\nplain"),
        ("{data.n} of {score}", "7 of 0.5"),
        ("{{{title}}}", "{Title}"),
    ],
)
def test_fields_paths_and_templates(key: str, text: str) -> None:
    assert TextKey(key).text(RECORD) == text


NO_TEXT = """absent data data.n data.body.x data.parts.2.t data.parts.x none flag text.__class__
{title}{absent} {title}{none} {flag} {data} {text.__len__}"""


@pytest.mark.parametrize("key", NO_TEXT.split())
def test_what_is_no_text_is_a_loss(key: str) -> None:
    with pytest.raises(Unusable) as caught:
        TextKey(key).text(RECORD)
    assert caught.value.reason == f"no text in {key!r}"
    if "{" in key:  # the field that is missing
        assert caught.value.detail[3:].strip("'") in TextKey(key).fields


@pytest.mark.parametrize("record", [None, 3, "text", ["text"], []])
def test_a_record_need_not_have_fields(record: Any) -> None:
    with pytest.raises(Unusable):
        TextKey("text").text(record)


@pytest.mark.parametrize(
    "key", ["", "{", "}", "{a", "a}", "{}", "{a!r}", "{a:>9}", "{a:{b}}", "no field {{"]
)
def test_keys_that_mean_nothing(key: str) -> None:
    with pytest.raises(UserError, match="--text-key is"):
        TextKey(key)


def test_metadata_has_the_last_name_and_scalars_only() -> None:
    names = metadata_names(["title", "data.n", "data.parts", "none", "absent", "when", "score"])
    record = RECORD | {"when": datetime.date(2024, 2, 29)}
    assert metadata_of(record, names) == {
        "title": "Title",
        "n": "7",
        "when": "2024-02-29",
        "score": "0.5",
    }
    with pytest.raises(UserError, match=r"has 'a\.url' and 'b\.url', both url"):
        metadata_names(["a.url", "b.url"])
    with pytest.raises(UserError, match="--metadata is ''"):
        metadata_names([""])
