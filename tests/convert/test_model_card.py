"""The model card tells what the run's folder and its dataset know, as it was."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import tiny

from llm_jax.config import RunConfig, to_dict
from llm_jax.convert.model_card import model_card
from llm_jax.convert.text_facts import TextFacts, languages_of
from llm_jax.data.build import BuildSpec, VocabSpec, build
from llm_jax.data.sources import FileSource
from llm_jax.runs.history import Entry, Text, append, beginning

JAPANESE = "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。\n"
ENGLISH = "The cat sat on the mat, and the dog was with the cat; this is what they told us.\n"
GERMAN = "Die Katze sitzt auf der Matte, und der Hund ist bei ihr; so hat man es uns erzählt.\n"


def dataset_of(folder: Path, text: str, licences: dict[str, int]) -> Path:
    sources = []
    for licence, documents in licences.items():
        texts = folder / licence.replace("/", "-")
        texts.mkdir(parents=True)
        for i in range(documents):
            (texts / f"{i}.txt").write_text(f"{licence} {i}\n{text * 5}", encoding="utf-8")
        sources.append(FileSource(texts, licence=licence))
    spec = BuildSpec(
        sources=tuple(sources), tokenizer=VocabSpec(vocab_size=330, character_coverage=0.98)
    )
    build(spec, folder / "set", lambda *_: None)
    return folder / "set"


def card_of(dataset: Path, run: Path, step: int = 20, **changes: Any) -> str:
    run.mkdir(exist_ok=True)
    config = tiny.run_config(run, dataset, **changes)
    return model_card(config, step, tiny.parameters(config.model), "LlamaForCausalLM", run)


def front_matter(card: str) -> dict[str, str]:
    lines = card.split("---\n")[1].splitlines()
    return dict(line.split(": ", 1) for line in lines)


@pytest.mark.parametrize(
    ("text", "licences", "fields", "prompt"),
    [
        (JAPANESE, {"CC-BY-4.0": 4}, {"language": "[ja]", "license": "cc-by-4.0"}, "今日は"),
        (
            ENGLISH,
            {"PSF-2.0": 4},
            {"language": "[en]", "license": "other", "license_name": '"PSF-2.0"'},
            "The",
        ),
        (
            ENGLISH + JAPANESE,
            {"mit": 3, 'a: "b"': 3},
            {
                "language": "[en, ja]",
                "license": "other",
                "license_name": json.dumps('mit, a: "b"'),
            },
            "The",
        ),
        (GERMAN, {"unknown": 4}, {"license": "unknown"}, None),
    ],
)
def test_licence_language_and_example_are_the_texts(text, licences, fields, prompt, tmp_path):
    card = card_of(dataset_of(tmp_path / "text", text, licences), tmp_path / "run")
    found = front_matter(card)
    assert {
        name: found[name] for name in found if name.startswith("l") and name != "library_name"
    } == fields
    for name, count in licences.items():
        assert f"{name} ({count} documents)" in card
    example = card.split("tokenizer(")[1].split(",")[0]
    if prompt:
        assert example == repr(prompt)
    else:
        assert example != repr("The")
        assert len(example) > 2


@pytest.mark.parametrize(
    ("text", "languages"),
    [
        (JAPANESE, ("ja",)),
        (ENGLISH, ("en",)),
        (ENGLISH * 3 + JAPANESE, ("en", "ja")),
        (ENGLISH + JAPANESE * 9, ("ja", "en")),
        (GERMAN, ()),
        ("漢字文章", ()),
        ("", ()),
        ("123 456\n", ()),
    ],
)
def test_languages(text: str, languages: tuple[str, ...]) -> None:
    assert languages_of(text) == languages


def test_another_dataset_in_the_same_place_is_not_described(tmp_path):
    dataset, run = dataset_of(tmp_path / "text", ENGLISH, {"mit": 4}), tmp_path / "run"
    run.mkdir()
    config = tiny.run_config(run, dataset)
    append(run, beginning(config, Text("another", 1000)).entries[0])
    assert front_matter(card_of(dataset, run))["license"] == "unknown"
    assert "licences of the text" not in card_of(dataset, run)
    gone = card_of(tmp_path / "nowhere", tmp_path / "run2")
    assert front_matter(gone)["license"] == "unknown"


def changed(config: RunConfig, step: int, tokens: int, field: str, effect: str) -> Entry:
    """A line of the history; `field` has other values from there on."""
    new = to_dict(dataclasses.replace(config, optim=tiny.optim_config(learning_rate=1e-2)))
    return Entry(step, new, None, 0.0, tokens // 16, tokens, {field: [1, 2]}, effect, parent=None)


def test_a_rate_that_was_changed_in_mid_run_is_told_and_what_came_later_is_not(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    config = tiny.run_config(run, "nowhere", steps=40)
    append(run, beginning(config, None).entries[0])
    rate = "learning rate 1.0e-03 → 1.0e-02 at once"
    append(run, changed(config, 10, 1280, "run.optim.learning_rate", rate))
    append(run, changed(config, 15, 1920, "run.log_every", "only what is logged"))
    append(run, changed(config, 30, 3840, "run.optim.learning_rate", "learning rate down"))
    now = dataclasses.replace(config, optim=tiny.optim_config(learning_rate=1e-2))
    card = model_card(now, 20, tiny.parameters(config.model), "LlamaForCausalLM", run)
    assert "peak learning rate 0.003," in card
    assert f"| changed after step 10 | {rate} |" in card
    assert "logged" not in card
    assert "down" not in card
    assert "20 steps, 2,560 tokens in all" in card


def test_weights_from_elsewhere_are_told(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    config = tiny.run_config(run, "nowhere")
    assert "This is a base model" in card_of(Path("nowhere"), run)
    parent = {"run": "/somewhere/theirs", "name": "theirs", "step": 0}
    append(run, beginning(config, None, parent).entries[0])
    card = card_of(Path("nowhere"), run)
    assert "| began with | the weights of theirs |" in card
    assert "/somewhere" not in card
    assert "base model" not in card
    assert "none recorded" in card_of(Path("nowhere"), run, step=0)
    assert "base model" not in card_of(Path("nowhere"), run, step=0)


def test_no_licence_is_no_field() -> None:
    assert TextFacts(licences={}).front_matter([]) == []
