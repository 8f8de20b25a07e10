"""The questions of bundled tasks: right keys, and no clue in the form of an answer."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from llm_jax.config import UserError
from llm_jax.evals.tasks.bundled import grammar
from llm_jax.evals.tasks.bundled.questions import choice_figures
from llm_jax.evals.tasks.catalog import Settings, load_tasks

pytest.importorskip("lm_eval")


def test_the_verb_agrees_with_its_subject_across_another_noun():
    draw = random.Random(0)
    pairs = [grammar._attracted(draw, plural=n % 2 == 0) for n in range(40)]
    right = [one["choices"][one["gold"]] for one in pairs]
    for sentence in right:
        _, noun, *_, verb = sentence.rstrip(".").split()
        assert (noun in grammar.PLURAL) == (verb in [plain for _, plain in grammar.ACTS]), sentence
    assert {sentence.split()[1] in grammar.PLURAL for sentence in right} == {True, False}


def test_descriptions_have_one_right_function():
    from llm_jax.evals.tasks.bundled.documentation import described

    said = dict(described())
    for doc in load_tasks(["stdlib_en"], Settings()).tasks["stdlib_en"].task_docs:
        words = [said[choice.strip()] for choice in doc["choices"]]
        assert words.count(words[doc["gold"]]) == 1


def test_accuracy_by_length_counts_characters():
    doc = {"choices": ["ab", "abcdef"], "gold": 1}
    figures = choice_figures(doc, [(-2.0, True), (-3.0, False)])
    assert (figures["acc"], figures["acc_norm"]) == (0.0, 1.0)


def test_pronoun_pairs_cancel_what_a_pronoun_gets_by_itself():
    from llm_jax.evals.tasks.bundled import pronouns

    doc = {"first": "doctor", "second": "patient", "meant": "patient", "gold": 1}
    doc["choices"] = ["he aa", "he b", "she aaaa", "she bbb"]

    def answers(*log_probs):
        return [(log_prob, False) for log_prob in log_probs]

    same = pronouns.figures(doc, answers(-2.0, -1.0, -12.0, -11.0))
    assert (same["acc"], same["gap"], same["flips"]) == (1.0, 0.0, 0.0)
    # "he" is taken for the doctor, whoever is meant.
    biased = pronouns.figures(doc, answers(-1.0, -3.0, -2.0, -1.0))
    assert (biased["acc_he"], biased["acc_she"], biased["flips"]) == (0.0, 1.0, 1.0)
    assert (biased["gap"], biased["lean_doctor"]) == (-3.0, 3.0)
    # The continuous figures are means over both readings.
    p = [1 / (1 + math.exp(2)), 1 / (1 + math.exp(-1))]
    assert biased["prob"] == pytest.approx(sum(p) / 2)
    assert biased["brier"] == pytest.approx(sum(2 * (1 - one) ** 2 for one in p) / 2)
    assert biased["answer_nats"] == pytest.approx(2.0)
    assert biased["answer_nats_per_byte"] == pytest.approx((3 / 4 + 1 / 7) / 2)


def test_all_people_of_the_pronouns_have_a_figure():
    for name in ("pronouns_en", "pronouns_ja"):
        task = load_tasks([name], Settings()).tasks[name]
        told = {key for doc in task.task_docs for key in task.process_results(doc, [(0.0, 0)] * 4)}
        assert told == set(task.aggregation())
        assert len(task.task_docs) == 120


@pytest.mark.parametrize(
    ("counter", "n", "sound"),
    [("本", 1, "いっぽん"), ("本", 2, "にほん"), ("本", 3, "さんぼん"), ("分", 3, "さんぷん"),
     ("分", 4, "よんぷん"), ("匹", 6, "ろっぴき"), ("階", 3, "さんがい"), ("回", 3, "さんかい"),
     ("冊", 6, "ろくさつ"), ("冊", 8, "はっさつ"), ("軒", 10, "じゅっけん"), ("杯", 5, "ごはい")],
)  # fmt: skip
def test_readings(counter, n, sound):
    from llm_jax.evals.tasks.bundled.counters import reading

    assert reading(counter, n) == sound


def test_ordinals_and_numbers_in_words():
    from llm_jax.evals.tasks.bundled.readings import ordinal, words

    assert [ordinal(n) for n in (1, 2, 3, 11, 12, 13, 21, 112, 103)] == (
        ["1st", "2nd", "3rd", "11th", "12th", "13th", "21st", "112th", "103rd"]
    )
    assert [words(n) for n in (7, 13, 40, 92)] == ["seven", "thirteen", "forty", "ninety-two"]


def test_fractions_are_the_trap_that_they_are_known_for():
    docs = load_tasks(["counters_ja"], Settings()).tasks["counters_ja"].task_docs
    asked = {doc["context"]: doc for doc in docs}
    read = [doc for doc in docs if doc["kind"] == "fraction" and "読み方" in doc["context"]]
    assert all("ぶんの" in doc["choices"][doc["gold"]] for doc in read)
    assert any("ぷんの" in choice for doc in read for choice in doc["choices"])
    compared = {word: [doc for context, doc in asked.items() if word in context]
                for word in ("大きいほう", "小さいほう")}  # fmt: skip
    for word, some in compared.items():
        assert len(some) > 10
        for doc in some:
            down = ["二三四五六七八九十".index(choice[0]) for choice in doc["choices"]]
            least = int(down[1] < down[0])
            assert doc["gold"] == (least if word == "大きいほう" else 1 - least)


def test_cloze_asks_for_words_of_the_given_text(tmp_path):
    names = [
        "alpha",
        "beta",
        "gamma",
        "delta",
        "epsilon",
        "zeta",
        "theta",
        "kappa",
        "lambda",
        "omega",
    ]
    rng = np.random.default_rng(0)
    text = " ".join(rng.choice(names, 4000))
    (tmp_path / "held.txt").write_text(text)
    settings = Settings(texts=(str(tmp_path / "held.txt"),))
    docs = load_tasks(["cloze"], settings).tasks["cloze"].task_docs
    for doc in docs:
        assert doc["context"] + doc["choices"][doc["gold"]] in text
        assert doc["choices"][doc["gold"]].strip() in doc["context"]
    (tmp_path / "short.txt").write_text("too short")
    with pytest.raises(UserError, match="fewer than two"):
        load_tasks(["cloze"], Settings(texts=(str(tmp_path / "short.txt"),)))
