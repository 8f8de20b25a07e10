"""Steps that read files of the user's, and languages; what they say if a file is missing."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from data_samples import JAPANESE

from llm_jax.config import ConfigError, UserError
from llm_jax.data.curate.draft import UNKNOWN, Draft
from llm_jax.data.curate.steps.language import Language
from llm_jax.data.curate.steps.lists import Url, Words


def kept(step: object, draft: Draft) -> bool:
    return all(check.holds for check in step.ready(Path()).check(draft))  # type: ignore[attr-defined]


def test_addresses(tmp_path: Path) -> None:
    for name, lines in {
        "domains": "# blocked\nBad.example\n\n",
        "addresses": "http://good.example/page\n",
        "words": "CASINO\n",
        "soft": "cheap\nfree\n",
    }.items():
        (tmp_path / name).write_text(lines, encoding="utf-8")
    step = Url(
        domains=str(tmp_path / "domains"), addresses=str(tmp_path / "addresses"),
        words=str(tmp_path / "words"), soft_words=str(tmp_path / "soft"),
    )  # fmt: skip
    step.prepare(tmp_path)
    for address, wanted in {
        "http://good.example/": True,
        "http://good.example/page": False,
        "https://WWW.Bad.example:8080/x": False,
        "https://bad.example./x": False,
        "https://notbad.example/": True,
        "http://good.example/Casino-online": False,
        "http://good.example/casinos": True,
        "http://cheap.example/": True,
        "http://cheap.example/free": False,
        "http://[bad": True,
    }.items():
        assert kept(step, Draft("x", metadata={"url": address})) == wanted, address
    draft = Draft("x")
    assert kept(step, draft) and draft.edits == {"url: no address": 1}


@pytest.mark.parametrize("word", ["free-casino", "カジノ"])
def test_a_word_that_no_address_can_have_is_refused(word: str, tmp_path: Path) -> None:
    (tmp_path / "words").write_text(f"casino\n{word}\n", encoding="utf-8")
    for name in ("words", "soft_words"):
        with pytest.raises(ConfigError, match=rf"url\.{name} has '{word}'"):
            Url(**{name: str(tmp_path / "words")}).prepare(tmp_path)


def test_words(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("spam\n広告\n広告主\n", encoding="utf-8")
    step = Words(file=str(path), most=2)
    assert kept(step, Draft("spam, Spam and spammers"))
    assert not kept(step, Draft("spam spam spam"))
    assert not kept(step, Draft("このspamとspamとspamは"))
    assert kept(step, Draft("広告主の広告"))
    assert not kept(step, Draft("広告主の広告と広告"))
    (tmp_path / "none.txt").write_text("# none\n", encoding="utf-8")
    with pytest.raises(UserError, match="has no words"):
        Words(file=str(tmp_path / "none.txt")).prepare(tmp_path)
    with pytest.raises(UserError, match="cannot be read"):
        Words(file=str(tmp_path / "absent")).prepare(tmp_path)


def test_languages(tmp_path: Path) -> None:
    pytest.importorskip("fasttext")
    step = Language(keep=("ja",))
    step.prepare(tmp_path)
    draft = Draft(JAPANESE)
    assert kept(step, draft) and draft.language == "ja" and draft.notes["language"] > 0.9
    english = Draft("The cat sat on the mat and looked at the rain for a long time.")
    assert not kept(step, english) and english.language == "en"
    assert kept(Language(), english)
    assert kept(Language(keep=("en", "ja")), english)
    assert Draft("").language == UNKNOWN
    assert not kept(step, Draft(""))


def test_a_language_model_that_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda *words: None)
    with pytest.raises(UserError, match=r"llm-jax\[curate\]"):
        Language().prepare(tmp_path)
