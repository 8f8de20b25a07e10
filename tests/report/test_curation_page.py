"""The page of a curation: counts, thresholds, examples; nothing unescaped or from elsewhere."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from llm_jax.data.curate.apply import Applier
from llm_jax.data.curate.draft import Draft
from llm_jax.data.curate.histogram import bin_of, edges
from llm_jax.data.curate.steps.c4 import C4
from llm_jax.data.curate.steps.gopher import GopherQuality
from llm_jax.data.curate.steps.lists import Words, _Hits
from llm_jax.data.curate.summary import summary
from llm_jax.data.curate.tally import EXAMPLES, Tally
from llm_jax.report.curation_page import page

FIRST = "This is the <b>text</b> & that is what we have."
LINE = "This line and that line have the words of a text, and they end."


@pytest.fixture(scope="module")
def tally() -> Tally:
    """60 documents of two sources, of 10 to 600 words, by two steps."""
    made = Tally(["gopher_quality", "c4"])
    steps = [("gopher_quality", GopherQuality().check), ("c4", C4().check)]
    applier = Applier(steps, made, lambda text: len(text.split()))
    for number in range(60):
        text = "\n".join([FIRST] + [LINE] * number + ["no end here"])
        draft = Draft(text, number=number, source="ab"[number % 2], file="<f>", language="en")
        applier.keeps(draft, is_new=True, is_last=True)
    return made


def test_what_comes_in_is_taken_or_left(tally: Tally) -> None:
    found = summary(tally, counts_tokens=True)
    assert found["documents"]["in"] == 60
    for unit in ("bytes", "tokens"):
        taken = sum(step[unit] for step in found["steps"])
        assert found[unit]["in"] - taken == pytest.approx(found[unit]["out"], abs=2)
    assert found["steps"][0]["reasons"] == {"words": found["steps"][0]["dropped"]}
    assert found["by_source"]["a"]["in"]["documents"] == 30
    assert set(found["by_language"]) == {"en"}


def test_examples_are_the_nearest_to_the_threshold(tally: Tally) -> None:
    held = tally.steps["gopher_quality"].examples
    assert held["dropped"][0]["value"] > held["dropped"][-1]["value"]
    assert held["dropped"][0]["value"] < 50
    assert len(held["kept"]) == EXAMPLES
    (change,) = tally.steps["c4"].examples["changed"][:1]
    assert "no end here" in change["was"] and "no end here" not in change["became"]
    assert change["edits"] == {"c4: line without an end": 1}


def test_the_page_shows_all_of_it(tally: Tally) -> None:
    info = summary(tally, counts_tokens=True)
    text = page(info | {"tally": tally.to_dict(), "fingerprint": "0" * 64})
    tags: list[str] = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attributes: tags.append(tag)  # type: ignore[method-assign]
    parser.feed(text)
    assert tags.count("svg") == 2 + 4 + 1 and tags.count("details") == 5
    assert not re.search(r"<script|<link|src=|https?://(?!www\.w3\.org)", text)
    assert "<b>text" not in text and "&lt;b&gt;text" in text and "&lt;f&gt;" in text
    assert f"{info['documents']['out']:,}" in text and "kept from 50 to 100,000" in text
    assert "2 sources" in text


def test_a_recipe_without_steps_has_a_page() -> None:
    made = Tally([])
    Applier([], made).keeps(Draft("text", source="s"), is_new=True, is_last=True)
    info = summary(made, counts_tokens=False)
    assert info["tokens"] is None
    text = page(info | {"tally": made.to_dict(), "fingerprint": "0" * 64})
    assert "no step" in text and text.count("<svg") == 2


def test_names_with_dollars_are_not_formulas() -> None:
    made, name = Tally(["words"]), r"a$\foo$"
    step = Words(file="", name=name)
    apply = [("words", _Hits(step, lambda text: []).check)]
    Applier(apply, made).keeps(Draft("text", source=f"{name}/x"), is_new=True, is_last=True)
    info = summary(made, counts_tokens=False)
    text = page(info | {"tally": made.to_dict(), "fingerprint": "0" * 64})
    drawn = re.findall(r"<text[^>]*>([^<]*)</text>", text)
    assert drawn.count(f"{name}/x") == 1 and f"hits of {name} words" in drawn


@pytest.mark.parametrize(
    ("low", "high"), [(None, 0.3), (0.65, None), (None, 0), (50, 100_000), (3.0, 10.0), (1, None)]
)
def test_a_threshold_is_an_edge_and_what_is_at_it_is_on_the_side_that_is_kept(
    low: float | None, high: float | None
) -> None:
    at = edges(low, high)
    assert list(at) == sorted(set(at))
    for bound in (low, high):
        if bound:
            assert bound in at
            inside = bound + (1e-9 if bound == low else -1e-9)
            outside = bound - (1e-9 if bound == low else -1e-9)
            assert bin_of(outside, low, high) != bin_of(inside, low, high)
    if low and high is None:
        assert bin_of(low, low, high) == bin_of(low + 1e-9, low, high)
    if high and low is None:
        assert bin_of(high, low, high) == bin_of(high - 1e-9, low, high)
