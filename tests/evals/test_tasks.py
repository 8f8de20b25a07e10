"""Tasks through the command line and through `evaluate_tasks`: figures, files, refusals."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from task_run import random_run
from verb_calls import call, call_json

from llm_jax.config import UserError
from llm_jax.evals.tasks.catalog import Settings, bundled_names, load_tasks
from llm_jax.evals.tasks.harness import check_tasks, evaluate_tasks
from llm_jax.language_model import load_model
from llm_jax.runs.scores import kept_scores

pytest.importorskip("lm_eval")


@pytest.fixture(scope="module")
def folder(tiny_dataset, tmp_path_factory):
    return random_run(tmp_path_factory.mktemp("run") / "run", tiny_dataset)


@pytest.fixture(scope="module")
def model(folder):
    return load_model(folder)


@pytest.mark.slow
def test_results_have_errors_counts_and_chance_levels(folder, capsys):
    words = ["eval", folder, "--tasks", "copying_en", "truth_ja", "--limit", 8, "--few-shot", 1]
    made = call_json(capsys, *words, "--keep", "--samples")
    assert "loss" not in made
    results = made["task_results"]["tasks"]
    assert list(results) == ["copying_en", "truth_ja"]
    one = results["copying_en"]
    assert (one["n"], one["of"], one["few_shot"], one["truncated"]) == (8, 200, 1, 0)
    acc = one["metrics"]["acc"]
    assert (acc["chance"], acc["higher_is_better"]) == (0.25, True)
    # The standard error of a mean of zeros and ones.
    p = acc["value"]
    assert acc["stderr"] == pytest.approx(math.sqrt(p * (1 - p) / 7))
    assert one["metrics"]["brier"]["chance"] == 0.75
    assert one["metrics"]["log_prob"]["chance"] is None
    assert results["truth_ja"]["metrics"]["acc"]["chance"] == 1 / 2
    assert acc["interval"][0] < p < acc["interval"][1]
    assert acc["above_chance"] == (acc["interval"][0] > 0.25)

    kept = {scores.task: scores for scores in kept_scores(folder, 0)}
    assert [kept["copying_en"].figures[key] for key in ("acc", "acc_stderr", "chance")] == [
        acc["value"], acc["stderr"], 0.25
    ]  # fmt: skip
    nats = kept["copying_en"].figures["answer_nats"]
    assert nats == pytest.approx(-one["metrics"]["log_prob"]["value"], rel=1e-5)
    assert kept["copying_en"].asked == ("copying_en", 1, 8, False, 0)
    assert (made["kept_tasks"], made["notes"]) == (str(folder / "scores" / "0.json"), [])
    lines = (folder / "task_samples" / "0" / "copying_en.jsonl").read_text().splitlines()
    assert len(lines) == 8
    sample = json.loads(lines[0])
    assert sample["arguments"][0][0].count("First:") == 2  # one solved example
    assert np.mean([json.loads(line)["acc"] for line in lines]) == p

    code, said, _ = call(capsys, *words, "--seed", 1)
    assert code == 0
    assert re.search(r"^copying_en +1  acc ↑ .* ± .* 0\.25 +8 of 200$", said, re.M)
    log_prob = one["metrics"]["log_prob"]
    assert re.search(r"^ +log_prob ↑ +-[\d.]+ ± [\d.]+ +8$", said, re.M)
    # Other solved examples.
    assert f"{log_prob['value']:.4g} ± {log_prob['stderr']:.2g}" not in said


@pytest.mark.slow
def test_every_bundled_task_is_the_same_each_time_and_says_its_chance(model):
    names = bundled_names()
    assert len(names) == 19
    first, again = (load_tasks(names, Settings(datasets=(model.run.data.path,))) for _ in range(2))
    for name in names:
        docs = [dict(doc) for doc in first.tasks[name].task_docs]
        assert docs == [dict(doc) for doc in again.tasks[name].task_docs]
        assert (5 if name == "cloze" else 100) <= len(docs) <= 200
        for doc in docs:
            assert len(set(doc["choices"])) == len(doc["choices"]) > 1
        golds = {doc["gold"] for doc in docs}
        assert len(golds) > 1 or name.startswith("pronouns")
    results = evaluate_tasks(model, names, limit=2)
    for name, one in results.tasks.items():
        assert one.n == 2
        assert one.metrics["acc"].chance is not None, name
        assert all(math.isfinite(figure.value) for figure in one.metrics.values())


def test_the_index_of_lm_eval_is_only_read_for_its_tasks(tmp_path, monkeypatch):
    from llm_jax.evals.tasks import catalog

    def unwanted():
        raise AssertionError("14,000 task files are read")

    monkeypatch.setattr(catalog, "_texts", unwanted)
    include = own_task(tmp_path / "own")
    assert check_tasks(["copying_en", "bundled_ja", "mine"], include) == []
    with pytest.raises(AssertionError):
        check_tasks(["hellaswag"])


def test_rolling_windows_predict_each_token_once(model, monkeypatch):
    from llm_jax.evals.tasks.model import HarnessModel
    from llm_jax.infer.scoring import Scored

    asked = HarnessModel(model)
    begin, pairs = model.tokenizer.bos_id, []
    monkeypatch.setattr(HarnessModel, "max_length", 4)
    monkeypatch.setattr(asked, "tok_encode", lambda text: list(range(10)))

    def score(given):
        pairs.extend((list(context), list(tokens)) for context, tokens in given)
        return [Scored(-1.0, False, ())] * len(given)

    monkeypatch.setattr(asked, "_score", score)
    request = type("Request", (), {"args": ("text",), "task_name": "t"})
    assert asked.loglikelihood_rolling([request]) == [-3.0]
    assert pairs == [
        ([begin], [0, 1, 2, 3]),
        ([3], [4, 5, 6, 7]),
        ([5, 6, 7], [8, 9]),
    ]


TASK = """task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: {kind}
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
{more}
"""


def own_task(folder, name="mine", kind="loglikelihood", more=""):
    folder.mkdir(exist_ok=True)
    data = folder / "data.jsonl"
    rows = [{"question": f"def f{n}(", "answer": "self"} for n in range(6)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / f"{name}.yaml").write_text(
        TASK.format(name=name, data=data, kind=kind, more=more), encoding="utf-8"
    )
    return folder


def test_a_folder_of_own_tasks_with_data_at_hand(model, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    include = own_task(tmp_path / "own")
    results = evaluate_tasks(model, ["mine"], include=include, samples=True)
    assert results.tasks["mine"].n == 6
    assert results.tasks["mine"].metrics["acc"].value in (0.0, 1.0)
    assert results.tasks["mine"].metrics["perplexity"].stderr > 0  # lm-eval prints what it does
    assert capsys.readouterr().out == ""
    rolling = own_task(tmp_path / "rolling", "rolled", "loglikelihood_rolling")
    (path,) = rolling.glob("*.yaml")
    path.write_text(path.read_text().replace("{{answer}}", "{{question}} {{answer}}"))
    result = evaluate_tasks(model, ["rolled"], include=rolling).tasks["rolled"]
    assert result.metrics["bits_per_byte"].value > 0
    assert result.metrics["bits_per_byte"].higher_is_better is False


@pytest.mark.slow
def test_a_question_among_its_own_examples_is_said(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    words = ["eval", folder, "--tasks", "mine", "--few-shot", 2]
    made = call_json(capsys, *words, "--include", own_task(tmp_path / "own"))
    assert "the one that is asked among them" in made["notes"][0]
    include = own_task(tmp_path / "split", more="fewshot_split: test")
    assert call_json(capsys, *words, "--include", include)["notes"] == []


def test_answers_end_at_stop_strings_and_fit_the_context(model, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    more = (
        'generation_kwargs: {until: ["e"], max_gen_toks: 24}\nmetric_list: [{metric: exact_match}]'
    )
    include = own_task(tmp_path / "own", "made", "generate_until", more)
    results = evaluate_tasks(model, ["made"], include=include, samples=True)
    answers = [one["resps"][0][0] for one in results.samples["made"]]
    assert all("e" not in answer for answer in answers)
    whole = model.generate("def f0(", max_tokens=24, temperature=0)
    assert answers[0] == whole.split("e")[0]
    assert results.tasks["made"].shortened == 0
    more = more.replace("24", "1000").replace('["e"]', '["\\n"]')
    include = own_task(tmp_path / "long", "made", "generate_until", more)
    limited = evaluate_tasks(model, ["made"], include=include, limit=2).tasks["made"]
    assert limited.shortened == 2


JP = {
    "instruction": '質問に答えなさい。{x}{% endraw %}"}}\\',
    "output_length": 8,
    "metrics": ["exact_match", "char_f1"],
    "few_shots": [{"input": "一", "output": "1"}, {"input": "二", "output": "2"}],
    "samples": [{"input": "三", "output": "3"}, {"input": "四", "output": "4"}],
    "num_few_shots": 1,
}


def test_the_json_of_llm_jp_eval(model, tmp_path):
    from llm_jax.evals.tasks.llm_jp import char_f1, figures

    path = tmp_path / "kazu.json"
    path.write_text(json.dumps(JP), encoding="utf-8")
    results = evaluate_tasks(model, ["kazu"], include=path, samples=True)
    one = results.tasks["kazu"]
    assert (one.n, one.few_shot) == (2, 1)
    assert set(one.metrics) == {"exact_match", "char_f1"}
    prompt = results.samples["kazu"][0]["arguments"][0][0]
    assert f"### 指示:\n{JP['instruction']}\n\n###" in prompt
    assert prompt.endswith("### 入力:\n一\n\n### 応答:\n1\n\n### 入力:\n三\n\n### 応答:\n")
    assert check_tasks(["kazu"], [path, path.parent]) == []
    more = JP | {"metrics": ["bleu", "char_f1", "comet_wmt22"]}
    path.write_text(json.dumps(more), encoding="utf-8")
    (said,) = check_tasks(["kazu"], path)
    assert "'kazu': bleu, comet_wmt22 of its file are not computed" in said
    english = JP | {"language": "en", "instruction": "Answer."}
    path.write_text(json.dumps(english), encoding="utf-8")
    asked = evaluate_tasks(model, ["kazu"], include=path, samples=True, limit=1).samples["kazu"]
    assert asked[0]["arguments"][0][0].endswith(
        "request.\n\n### Instruction:\nAnswer.\n\n### Input:\n一\n\n### Response:\n1\n\n"
        "### Input:\n三\n\n### Response:\n"
    )
    path.write_text(json.dumps(JP | {"language": "fr"}), encoding="utf-8")
    with pytest.raises(UserError, match="'fr': give one of ja, en"):
        check_tasks(["kazu"], path)
    assert char_f1("東京都", "東京") == pytest.approx(4 / 5)
    assert char_f1("大阪、東京。", "東京 大阪") == 1.0
    found = figures(
        {"output": "４２"}, ["答えは42です"], metrics=("exact_match",), pattern="答えは(.*?)です"
    )
    assert found == {"exact_match": 1.0}


@pytest.mark.slow
def test_tasks_of_reasoning_gym(model):
    pytest.importorskip("reasoning_gym")
    name = "reasoning_gym:basic_arithmetic"
    task = load_tasks([name], Settings()).tasks[name]
    doc = task.task_docs[0]
    assert task.process_results(doc, [doc["answer"]]) == {"score": 1.0, "exact_match": 1.0}
    assert task.process_results(doc, ["no number"])["exact_match"] == 0.0
    results = evaluate_tasks(model, [name], limit=2)
    assert results.tasks[name].metrics["score"].value < 1


def test_what_cannot_be_scored_is_one_sentence_before_a_model_is_loaded(folder, tmp_path, capsys):
    code_folder = own_task(tmp_path / "code", more="process_docs: !function code.run")
    (tmp_path / "code" / "code.py").write_text("raise SystemExit('run')\n")
    pickled = own_task(tmp_path / "pickled")
    (path,) = pickled.glob("*.yaml")
    path.write_text(path.read_text().replace("dataset_path: json", "dataset_path: pandas"))
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "a.yaml").write_text("task: [")
    japanese = tmp_path / "bleu.json"
    japanese.write_text(json.dumps(JP | {"metrics": ["bleu"]}))
    template = own_task(tmp_path / "template")
    (path,) = template.glob("*.yaml")
    path.write_text(path.read_text().replace("{{question}}", "{{ ''.__class__.__mro__ }}"))
    script = own_task(tmp_path / "script", more="metric_list: [{metric: ./code.py}]")
    (tmp_path / "code.py").write_text("raise SystemExit('run')\n")
    cases = [
        (["--tasks", "mine", "--include", script], "the metric './code.py', a script"),
        (["--tasks", "copying_em"], "did you mean 'copying_en'"),
        (["--tasks", "copying_en", "copying_en"], "twice"),
        (["--tasks", "reasoning_gym:basic_aritmetic"], "did you mean 'basic_arithmetic'"),
        (["--tasks", "humaneval"], "--run-code"),
        (["--tasks", "mine", "--include", code_folder], "'code.run', which is code of its author"),
        (["--tasks", "mine", "--include", pickled], "'pandas'"),
        (["--tasks", "mine", "--include", broken], "not valid YAML"),
        (["--tasks", "mine", "--include", tmp_path / "nowhere"], "does not exist"),
        (["--tasks", "bleu", "--include", japanese], "bleu"),
        (["--tasks", "mine", "--include", template], "SecurityError"),
        (["--tasks", "copying_en", "--chat-template"], "has no chat template"),
        (["--tasks", "copying_en", "--samples"], "--keep"),
        (["--tasks", "copying_en", "--few-shot", "21"], "has 20 solved examples: give 20 or"),
        (["--tasks", "truth_ja", "--few-shot", "117"], "has 116 solved examples: give 116 or"),
        (["--tasks", "copying_en", "--limit", "0"], "--limit"),
        (["--limit", "3"], "--limit is about tasks"),
    ]
    for flags, sentence in cases:
        code, said, err = call(capsys, "eval", folder, *flags)
        assert (code, said) == (2, ""), flags
        assert sentence in err, (flags, err)
        assert "Traceback" not in err


@pytest.mark.slow
def test_a_task_of_the_hub_without_its_data_is_one_sentence(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    code, _, err = call(capsys, "eval", folder, "--tasks", "lambada_openai")
    assert code == 2
    assert "The data of task 'lambada_openai' are not at hand" in err
    with pytest.raises(UserError, match="lambada_openai"):
        check_tasks(["lambada_opnai"])


def test_a_chat_template_is_that_of_the_tokenizer(model):
    from llm_jax.evals.tasks.model import HarnessModel

    form = "{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    form += "{% if add_generation_prompt %}<a>{% endif %}"
    with_form = type(model.tokenizer)(
        model.tokenizer.content, {"chat_template.jinja": form.encode()}
    )
    asked = HarnessModel(dataclasses.replace(model, tokenizer=with_form))
    assert asked.chat_template(True) == form and asked.chat_template() is None
    messages = [{"role": "user", "content": "猫?"}]
    assert asked.apply_chat_template(messages) == "<s><user>猫?<a>"
    assert asked.apply_chat_template(messages, add_generation_prompt=False) == "<s><user>猫?"
    assert HarnessModel(model).chat_template(True) is None
    # Special tokens that the template writes are these tokens, as in `serve`.
    told = HarnessModel(asked.own, chat=True)
    tokenizer = told.own.tokenizer
    text = told.apply_chat_template(messages) + "</s>x"
    begin, *middle, end, last = told.tok_encode(text)
    assert (begin, end) == (tokenizer.bos_id, tokenizer.eos_id)
    assert [*middle, last] == tokenizer.encode("<user>猫?<a>") + tokenizer.encode("x")
    assert HarnessModel(model).tok_encode(text)[:1] == [tokenizer.bos_id]
    assert tokenizer.eos_id not in HarnessModel(model).tok_encode(text)
    with pytest.raises(UserError, match="Leave the flag out"):
        HarnessModel(model).apply_chat_template(messages)


@pytest.mark.slow
def test_the_commands_of_the_guide_are_run(folder, tmp_path, monkeypatch, capsys):
    page = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text("utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    Path("runs").mkdir()
    Path("tasks").mkdir()
    Path("runs/first").symlink_to(folder)
    files = re.findall(
        r"`(colours\.yaml|colours\.jsonl|kazu\.json)`:\n\n```\w+\n(.*?)^```$", page, re.M | re.S
    )
    assert len(files) == 3
    for name, content in files:
        Path("tasks", name).write_text(content, encoding="utf-8")
    blocks = re.findall(r"^```bash\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    commands = [shlex.split(line)[1:] for block in blocks for line in block.splitlines()]
    assert len(commands) == 4
    for words in commands:
        made = call_json(capsys, *words, "--limit", 1)["task_results"]["tasks"]
        asked = [word for word in words[words.index("--tasks") + 1 :] if word in made]
        assert asked or "bundled_ja" in words
        assert all(one["n"] == 1 for one in made.values())
