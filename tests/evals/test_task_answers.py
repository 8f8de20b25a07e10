"""What a task asks for and what of it is scored: right answers as they are shown, labels that are
no choice, tokens that question and answer share, and settings of generated answers."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from task_run import random_run

pytest.importorskip("lm_eval")

from llm_jax.config import DataConfig, UserError
from llm_jax.evals.tasks import figures as figures_module
from llm_jax.evals.tasks.answers import generate, settings_of
from llm_jax.evals.tasks.catalog import Settings, load_tasks
from llm_jax.evals.tasks.figures import TaskFigures, figures_of, shown
from llm_jax.evals.tasks.harness import evaluate_loaded
from llm_jax.evals.tasks.smooth import rights_of
from llm_jax.infer.scoring import Scorer
from llm_jax.language_model import LanguageModel, load_model

TASK = """
task: own
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
{more}
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tiny_dataset: Path) -> LanguageModel:
    return load_model(random_run(tmp_path_factory.mktemp("run") / "run", tiny_dataset))


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes and loads a task."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))

    def make(rows: list[dict[str, Any]], more: str) -> Any:
        data = tmp_path / "rows.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows))
        (tmp_path / "own.yaml").write_text(TASK.format(data=data, more=more))
        return load_tasks(["own"], Settings(include=tmp_path))

    return make


GENERATED = """output_type: generate_until
doc_to_text: "{{q}}"
doc_to_target: "%s"
target_delimiter: "%s"
generation_kwargs: {until: ["\\n"], max_gen_toks: 4}
metric_list: [{metric: exact_match}]
"""


def nats(model: LanguageModel, pairs: list[tuple[str, str]]) -> float:
    """-log p of the second text after the first, a mean."""
    scorer = Scorer(model.run, model.params, vocab_size=model.tokenizer.vocab_size)
    ids = [(model.tokens(a), model.tokens(a + b)) for a, b in pairs]
    scored = scorer.score([(a, whole[len(a) :]) for a, whole in ids])
    return -sum(one.log_prob for one in scored) / len(pairs)


@pytest.mark.parametrize(
    ("target", "delimiter", "more", "told"),
    [
        (" {{a}}", "", "", " x"),  # as in reasoning-gym
        ("{{a}}", ": ", "", ": x"),
        ("    {{a}}", "", "", "    x"),  # the indentation of a program
        ("{{n}}", " ", "doc_to_choice: [y, x]\n", " x"),  # a choice by its number
    ],
)
def test_the_right_answer_is_scored_as_it_is_shown(
    model: LanguageModel, own: Any, target: str, delimiter: str, more: str, told: str
) -> None:
    rows = [{"q": f"def f{n}(y):\n  return", "a": "x", "n": 1} for n in range(3)]
    loaded = own(rows, GENERATED % (target, delimiter) + more)
    scorer = Scorer(model.run, model.params, vocab_size=model.tokenizer.vocab_size)
    results = evaluate_loaded(model, loaded, samples=True, scorer=scorer)
    found = figures_of("own", results, loaded, model, scorer)
    assert found["answer_nats"] == pytest.approx(
        nats(model, [(row["q"], told) for row in rows]), rel=1e-5
    )
    one = next(iter(results.samples["own"]))
    assert loaded.tasks["own"].config.num_fewshot == 0
    assert found["edit_distance"] > 0.5 and one["filtered_resps"][0] is not None


def test_a_conversation_has_no_delimiter() -> None:
    task = SimpleNamespace(
        config=SimpleNamespace(target_delimiter=" "), doc_to_prefix=lambda doc: doc["prefix"]
    )
    assert shown(task, {"prefix": None}, "42", chat=False) == " 42"
    assert shown(task, {"prefix": None}, "42", chat=True) == "42"
    for chat in (False, True):
        assert shown(task, {"prefix": "Answer:"}, "42", chat=chat) == " 42"
        assert shown(task, {"prefix": "答え： "}, "42", chat=chat) == "42"


def test_right_answers_of_several_kinds() -> None:
    assert rights_of({"target": [" a", "", "b\n"]}, None) == [" a", "b\n"]
    assert rights_of({"target": 1}, ["no", "yes"]) == ["yes"]
    assert rights_of({"target": [0, 7]}, ["no", "yes"]) == ["no"]
    assert rights_of({"target": 12}, None) == ["12"]


CHOICE = """output_type: multiple_choice
doc_to_text: "{{q}}"
doc_to_choice: "{{choices}}"
doc_to_target: "%s"
metric_list: [{metric: acc}]
"""


def test_a_label_that_is_no_choice_is_said(model: LanguageModel, own: Any) -> None:
    rows = [
        {"q": "Grass is", "choices": ["blue", "green"], "a": one}
        for one in ("green", "Green", "green")
    ]
    result = evaluate_loaded(model, own(rows, CHOICE % "{{a}}")).tasks["own"]
    assert result.unlabelled == 1
    assert result.metrics["acc"].value in (0.0, pytest.approx(2 / 3))
    hidden = own([row | {"a": -1} for row in rows], CHOICE % "a")
    with pytest.raises(UserError, match="No question of task 'own' has its right answer among"):
        evaluate_loaded(model, hidden)


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"a": None}, "Question 2 of task 'own' has the right answer None"),
        ({"choices": "blue", "a": 1}, "Question 1 of task 'own' has the choices 'blue'"),
    ],
)
def test_a_question_that_cannot_be_scored_is_named(
    model: LanguageModel, own: Any, row: dict[str, Any], sentence: str
) -> None:
    first = {"q": "Grass is", "choices": ["blue", "green"], "a": 1}
    more = (CHOICE % "a").replace('"{{choices}}"', "choices")
    rows = [first | {"choices": row.get("choices", first["choices"])}, first | row]
    with pytest.raises(UserError, match=sentence):
        evaluate_loaded(model, own(rows, more))


def test_chance_counts_all_right_answers(model: LanguageModel, own: Any) -> None:
    rows = [
        {"q": "Even is", "choices": ["1", "2", "3", "4"], "a": rights} for rights in ([1, 3], [1])
    ]
    result = evaluate_loaded(model, own(rows, CHOICE % "a")).tasks["own"]
    assert result.metrics["acc"].chance == pytest.approx((2 / 4 + 1 / 4) / 2)
    assert result.unlabelled == 0


def test_a_token_that_question_and_answer_share_is_said(model: LanguageModel, own: Any) -> None:
    tokenizer = model.tokenizer
    piece = next(
        text
        for text in map(tokenizer.decode, ([i] for i in range(300, tokenizer.vocab_size)))
        if len(text) > 3 and text.isalpha() and len(tokenizer.encode(text)) == 1
        and tokenizer.encode(text[:2]) != tokenizer.encode(text)
    )  # fmt: skip
    rows = [{"q": piece[:2], "choices": [piece[2:] + "(x, y)", "("], "a": 0}]
    loaded = own(rows, CHOICE % "a" + 'target_delimiter: ""\n')
    result = evaluate_loaded(model, loaded, samples=True)
    assert result.tasks["own"].joined == 1
    # As in lm-eval: both are encoded together, and cut after as many ids as the question has.
    asked, whole = tokenizer.encode(piece[:2]), tokenizer.encode(piece + "(x, y)")
    scorer = Scorer(model.run, model.params, vocab_size=tokenizer.vocab_size)
    (one,) = scorer.score([([tokenizer.bos_id, *asked], whole[len(asked) :])])
    told = result.samples["own"][0]["filtered_resps"][0][0]
    assert told == pytest.approx(one.log_prob, rel=1e-5)
    found = figures_of("own", result, loaded, model, scorer)
    assert found["joined"] == 1.0 and "truncated" not in found


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"do_sample": True}, "gives no temperature above 0"),
        ({"do_sample": True, "temperature": 0.0}, "gives no temperature above 0"),
        ({"temperature": -1.0}, "In generation_kwargs of task 'own': --temperature is -1.0"),
        ({"temperature": 1.0, "top_p": 0.0}, "In generation_kwargs of task 'own': --top-p"),
        ({"max_gen_toks": 0}, "answers of 0 tokens"),
        ({"max_gen_toks": "many"}, "In generation_kwargs of task 'own', until must be a text"),
        ({"until": 3}, "In generation_kwargs of task 'own', until must be a text"),
        ({"num_beams": 4}, "num_beams"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        settings_of("own", settings)


def test_settings_that_switch_off() -> None:
    _, most, sampling = settings_of("own", {"temperature": 0.7, "top_k": 0, "min_p": 0.0})
    assert (most, sampling.temperature, sampling.top_k, sampling.min_p) == (256, 0.7, None, None)
    assert settings_of("own", {"temperature": 0.7, "do_sample": False})[2].temperature == 0


def test_a_sampled_answer_does_not_depend_on_other_tasks(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def complete(engine: Any, tokenizer: Any, requests: Any, stops: Any) -> list[Any]:
        asked.extend(request.seed for request in requests)
        return [[SimpleNamespace(text="")]] * len(requests)

    monkeypatch.setattr("llm_jax.infer.completion_text.complete", complete)
    counts = {name: Counter[str]() for name in ("truncated", "shortened")}
    prompts: list[tuple[list[int], dict[str, Any]]] = [([1], {"max_gen_toks": 4})] * 5
    generate(Any, prompts, ["a", "a", "b", "a", "b"], model=model, seed=7, **counts)  # type: ignore[arg-type]
    assert asked == [7, 8, 7, 9, 8]


def test_cloze_asks_each_run_about_its_own_text(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr(
        figures_module, "load_tasks", lambda names, settings: asked.append(settings.datasets)
    )
    scores = TaskFigures()
    for path in ("a", "b", "a"):
        scores.load("cloze", SimpleNamespace(data=DataConfig(path=path)))  # type: ignore[arg-type]
    assert asked == [("a",), ("b",)]
