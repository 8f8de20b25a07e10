"""Tasks scored along the course of a run: while it trains, on its checkpoints, as they appear."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import pytest
from task_run import random_run
from tiny import VOCAB, model_config, run_config

pytest.importorskip("lm_eval")

from llm_jax.cli import main
from llm_jax.commands.training_tasks import check_tasks_of, task_scorer
from llm_jax.config import (
    CheckpointConfig,
    ConfigError,
    DataConfig,
    EvalConfig,
    RunConfig,
    to_json,
)
from llm_jax.evals.tasks.course import Checkpoints, checkpoints_of, follow
from llm_jax.evals.tasks.figures import TaskFigures
from llm_jax.evals.tasks.harness import evaluate_tasks
from llm_jax.evals.tasks.smooth import edit_distance
from llm_jax.infer.scoring import Scorer
from llm_jax.language_model import load_model
from llm_jax.parallel.mesh import make_mesh
from llm_jax.runs.scores import kept_scores, recorded_scores
from llm_jax.train.loop import train
from llm_jax.train.metrics import read_metrics

TASKS = ("copying_en", "grammar_ja")
LIMIT = 6
ECHO = """
task: echo
dataset_path: json
dataset_kwargs: {data_files: {test: DATA}}
test_split: test
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["\\n"], max_gen_toks: 4, do_sample: false}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
"""


@pytest.fixture(scope="module")
def include(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a task whose answers are generated."""
    folder = tmp_path_factory.mktemp("include")
    docs = [{"question": f"def f{i}(x): return", "answer": f"x{i}"} for i in range(3)]
    (folder / "docs.jsonl").write_text("".join(json.dumps(doc) + "\n" for doc in docs))
    (folder / "echo.yaml").write_text(ECHO.replace("DATA", str(folder / "docs.jsonl")))
    return folder


def config_of(out: Path, data: Path, **changes: Any) -> RunConfig:
    fields: dict[str, Any] = {
        "steps": 4,
        "model": model_config(vocab_size=VOCAB, num_layers=1, max_seq_len=128),
        "data": DataConfig(path=str(data), seq_len=16, batch_size=8),
        "eval": EvalConfig(every=100, batches=1, tasks=TASKS, tasks_every=2, task_limit=LIMIT),
        "checkpoint": CheckpointConfig(every=2, keep_last=2),
    }
    return run_config(out, data, **(fields | changes))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_dataset: Path, include: Path) -> Path:
    """Trained on a mesh of 8 devices, which scores it too."""
    out = tmp_path_factory.mktemp("course") / "run"
    asked = EvalConfig(every=100, batches=1, tasks=(*TASKS, "echo"), tasks_every=2,
                       task_limit=LIMIT, include=str(include))  # fmt: skip
    config = config_of(out, tiny_dataset, eval=asked)
    check_tasks_of(config)
    assert train(config, tasks=task_scorer)["exit_code"] == 0
    return out


def nothing(sentence: str) -> None:
    """Says nothing."""


@pytest.fixture(scope="module")
def checkpoints() -> Checkpoints:
    return Checkpoints(TASKS, limit=LIMIT, say=nothing, opened=load_model)


def called(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, Any]:
    with pytest.raises(SystemExit) as left:
        main([*map(str, words), "--json"])
    assert not left.value.code
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.slow
def test_scores_are_those_of_the_checkpoint(
    run: Path, checkpoints: Checkpoints, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded = recorded_scores(read_metrics(run / "metrics.jsonl"))
    assert sorted(recorded) == [2, 4] and recorded[2] != recorded[4]
    asked = ("eval", run, "--tasks", *TASKS, "--limit", LIMIT)
    results = called(capsys, *asked, "--step", 4)["task_results"]["tasks"]
    for task in TASKS:
        for name, figure in results[task]["metrics"].items():
            told = recorded[4][f"{task}/{name}"], recorded[4][f"{task}/{name}_stderr"]
            assert told == pytest.approx((figure["value"], figure["stderr"]), abs=1e-5)
        assert recorded[4][f"{task}/n"] == LIMIT
        assert 0 < recorded[4][f"{task}/chance"] < 1
    for step in (2, 4):
        for one in checkpoints.score(run, step):
            for name, value in one.figures.items():
                assert recorded[step][f"{one.task}/{name}"] == pytest.approx(value, abs=1e-5)
    found = called(capsys, *asked, "--all-steps")
    assert [one["step"] for one in found["checkpoints"]] == [2, 4] and found["failed"] == 0
    for one in found["checkpoints"]:
        kept = {scores.task: scores.figures for scores in kept_scores(run, one["step"])}
        assert one["scores"] == kept


@pytest.mark.slow
def test_flags_of_one_checkpoint_are_refused_with_all(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, sentence in (
        (["--follow"], "name some with --tasks"),
        (["--all-steps", "--tasks", "copying_en", "--step", "2"], "--step is given with"),
        (["--follow", "--tasks", "copying_en", "--seed", "1"], "--seed is given with --follow"),
    ):
        with pytest.raises(SystemExit) as left:
            main(["eval", str(run), *words])
        assert left.value.code == 2 and sentence in capsys.readouterr().err


@pytest.mark.slow
def test_the_answer_in_nats_is_that_of_the_samples(run: Path, checkpoints: Checkpoints) -> None:
    (copying, _) = checkpoints.score(run, 4)
    samples = evaluate_tasks(load_model(run, 4), TASKS[:1], limit=LIMIT, samples=True).samples
    right = [one["resps"][one["target"]][0][0] for one in samples[TASKS[0]]]
    sizes = [len(one["arguments"][one["target"]][1].encode()) for one in samples[TASKS[0]]]
    assert copying.figures["answer_nats"] == pytest.approx(-sum(right) / LIMIT, rel=1e-5)
    per_byte = sum(-nats / size for nats, size in zip(right, sizes, strict=True)) / LIMIT
    assert copying.figures["answer_nats_per_byte"] == pytest.approx(per_byte, rel=1e-5)


@pytest.mark.slow
def test_what_is_kept_is_not_scored_again(run: Path, checkpoints: Checkpoints) -> None:
    first, said = checkpoints.score(run, 2), list[str]()
    again = Checkpoints(TASKS, limit=LIMIT, say=said.append, opened=load_model)
    assert again.score(run, 2) == first and not said
    assert kept_scores(run, 2) == first


@pytest.mark.slow
def test_generated_answers_have_smooth_figures(run: Path, include: Path) -> None:
    recorded = recorded_scores(read_metrics(run / "metrics.jsonl"))[4]
    results = evaluate_tasks(load_model(run, 4), ["echo"], include=str(include), samples=True)
    assert recorded["echo/exact_match"] == results.tasks["echo"].metrics["exact_match"].value == 0
    answers = [one["filtered_resps"][0] for one in results.samples["echo"]]
    distances = [edit_distance(text.strip(), f"x{i}") for i, text in enumerate(answers)]
    assert recorded["echo/edit_distance"] == pytest.approx(sum(distances) / 3)
    model = load_model(run, 4)
    scorer = Scorer(model.run, model.params, vocab_size=model.tokenizer.vocab_size)
    whole = [model.tokens(f"def f{i}(x): return x{i}") for i in range(3)]
    pairs = [(ids[: len(model.tokens(f"def f{i}(x): return"))],) for i, ids in enumerate(whole)]
    scored = scorer.score(
        [(context, ids[len(context) :]) for (context,), ids in zip(pairs, whole, strict=True)]
    )
    nats = -sum(one.log_prob for one in scored) / 3
    assert recorded["echo/answer_nats"] == pytest.approx(nats, rel=1e-5)


@pytest.mark.slow
def test_answers_end_at_the_ids_of_an_imported_model(
    tmp_path: Path, tiny_dataset: Path, include: Path
) -> None:
    asked = EvalConfig(tasks=("echo",), include=str(include))
    folder = random_run(tmp_path / "run", tiny_dataset)
    model = load_model(folder)
    config = replace(model.run, out=str(folder), eval=asked)
    mesh = make_mesh(config.parallel, jax.devices()[:1])

    def distance() -> float:
        scored = task_scorer(config, mesh, model.tokenizer)
        assert scored.prepare("echo") == ""
        return scored("echo", model.params, 0)["edit_distance"]

    firsts = {int(model.logits(f"def f{i}(x): return")[-1].argmax()) for i in range(3)}
    before = distance()
    (folder / "imported").mkdir()
    said = json.dumps({"eos_token_id": sorted(firsts)})
    (folder / "imported" / "generation_config.json").write_text(said)
    assert load_model(folder).stop_ids[1:] == tuple(sorted(firsts))
    assert distance() == 1.0  # every answer ends before its first token
    results = evaluate_tasks(load_model(folder), ["echo"], include=str(include), samples=True)
    assert [one["filtered_resps"][0] for one in results.samples["echo"]] == [""] * 3
    assert before <= 1.0


@pytest.mark.slow
def test_a_digest_is_that_of_the_questions(run: Path, include: Path) -> None:
    config = load_model(run, 4).run
    first, again = (TaskFigures(include=include, limit=2) for _ in range(2))
    assert first.digest("echo", config) == again.digest("echo", config)
    others = TaskFigures(include=include, limit=3), TaskFigures(few_shot=1, limit=2)
    assert others[0].digest("echo", config) != first.digest("echo", config)
    fewer = TaskFigures(limit=2)
    assert others[1].digest("copying_en", config) != fewer.digest("copying_en", config)


@pytest.mark.slow
def test_generation_needs_one_process(
    run: Path, monkeypatch: pytest.MonkeyPatch, include: Path, tiny_dataset: Path
) -> None:
    monkeypatch.setenv("JAX_NUM_PROCESSES", "2")
    check_tasks_of(config_of(run, tiny_dataset))
    asked = EvalConfig(tasks=("echo",), include=str(include))
    with pytest.raises(ConfigError, match="--follow"):
        check_tasks_of(config_of(run, tiny_dataset, eval=asked))


@pytest.mark.slow  # to say what is near, lm-eval's index of 14,000 tasks is read
def test_an_unknown_task_is_refused_before_anything(
    tmp_path: Path, tiny_dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "run.json"
    file.write_text(to_json(config_of(tmp_path / "run", tiny_dataset)))
    with pytest.raises(SystemExit) as left:
        main(["train", str(file), "--eval.tasks", "copying_em"])
    assert left.value.code and "copying_en" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_checkpoint_that_goes_while_it_is_read_is_said_to_be_deleted(
    run: Path, tmp_path: Path
) -> None:
    """Its parameters are gone before its folder is."""
    copy = tmp_path / "run"
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("scores"))
    going = copy / "checkpoints" / "2"
    shutil.rmtree(going / "params")
    threading.Timer(1.0, shutil.rmtree, [going]).start()
    said = list[str]()
    asked = Checkpoints(TASKS[:1], limit=2, say=nothing, opened=load_model)
    found, failures = follow(copy, asked, said.append)
    assert sorted(found) == [4] and failures == 1
    assert len(said) == 1 and "Checkpoint 2 was deleted" in said[0]


@pytest.mark.slow
def test_a_run_in_another_process_is_followed(tmp_path: Path, tiny_dataset: Path) -> None:
    """Each of its checkpoints is scored, or said to be gone; it ends when the run has."""
    out = tmp_path / "run"
    config = config_of(out, tiny_dataset, eval=EvalConfig(every=100, batches=1), steps=6)
    file, said = tmp_path / "run.json", list[str]()
    file.write_text(to_json(config))
    trainer = subprocess.Popen(
        [sys.executable, "-m", "llm_jax", "train", str(file)],
        env=os.environ,
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    try:
        while not (out / "run.json").is_file():
            assert trainer.poll() is None
            time.sleep(0.1)
        found, failures = follow(
            out, Checkpoints(TASKS[:1], limit=2, say=nothing, opened=load_model), said.append
        )
        assert trainer.wait() == 0
    finally:
        trainer.kill()
    assert 6 in found and set(found) <= {2, 4, 6}
    assert failures == len(said) and all("was deleted" in one for one in said)
    assert [one.figures for one in kept_scores(out, 6)] == [found[6][0].figures]


@pytest.mark.slow
def test_following_survives_what_it_cannot_read(run: Path, tmp_path: Path) -> None:
    out, said = tmp_path / "run", list[str]()
    shutil.copytree(run, out, ignore=shutil.ignore_patterns("scores"))
    sizes = {p.stat().st_size: p for p in (out / "checkpoints/2/params").rglob("*") if p.is_file()}
    os.truncate(sizes[max(sizes)], 10)
    found, failures = follow(
        out, Checkpoints(TASKS[:1], limit=2, say=nothing, opened=load_model), said.append
    )
    assert set(found) == {4} and failures == 1 and "Checkpoint 2 is not scored" in said[0]
    # An unfinished run that nobody writes to has ended.
    shutil.rmtree(out / "checkpoints" / "4")
    found, _ = follow(
        out,
        Checkpoints(TASKS[:1], limit=2, say=nothing, opened=load_model),
        said.append,
        patience=0.1,
    )
    assert found == {} and "counts as ended" in said[-1]
    assert checkpoints_of(out) == [2]


PLACED = """
task: NAME
dataset_path: json
dataset_kwargs: {data_files: {test: NAME.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: ["a", "b"]
doc_to_target: 0
"""


@pytest.mark.slow
def test_two_processes_score_together(run: Path, tmp_path: Path, tiny_dataset: Path) -> None:
    """The scores are those of one process; only the first one writes them. A task whose data one
    process lacks, or has otherwise, is begun by none."""
    out, file, tasks = tmp_path / "run", tmp_path / "run.json", tmp_path / "tasks"
    tasks.mkdir()
    for name in ("lacking", "different"):
        (tasks / f"{name}.yaml").write_text(PLACED.replace("NAME", name))
    places = [tmp_path / str(number) for number in range(2)]
    for number, place in enumerate(places):
        place.mkdir()
        rows = [json.dumps({"question": f"{number * i}"}) + "\n" for i in range(3 + 40 * number)]
        (place / "different.jsonl").write_text("".join(rows))
    shutil.copy(places[0] / "different.jsonl", places[0] / "lacking.jsonl")
    asked = EvalConfig(every=100, batches=1, tasks=("lacking", "different", *TASKS), tasks_every=2,
                       task_limit=LIMIT, include=str(tasks))  # fmt: skip
    file.write_text(to_json(config_of(out, tiny_dataset, eval=asked)))
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    root = str(Path(__file__).parents[2])
    common = os.environ | {
        "JAX_NUM_CPU_DEVICES": "4",
        "JAX_COORDINATOR_ADDRESS": address,
        "JAX_NUM_PROCESSES": "2",
        "PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH")))),
    }
    hosts = [
        subprocess.Popen(
            [sys.executable, "-m", "llm_jax", "train", str(file)],
            env=common | {"JAX_PROCESS_ID": str(number)},
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            cwd=place,
        )
        for number, place in enumerate(places)
    ]
    said = [host.communicate(timeout=140)[1] for host in hosts]
    assert [host.returncode for host in hosts] == [0, 0], said
    assert said[0].count("Task lacking is not scored (in process 1: UserError: The data of") == 1
    assert said[0].count("Task different is not scored (its questions are not the same") == 1
    together = recorded_scores(read_metrics(out / "metrics.jsonl"))
    alone = recorded_scores(read_metrics(run / "metrics.jsonl"))
    assert sorted(together) == [2, 4]
    for step, figures in together.items():
        assert {name.partition("/")[0] for name in figures} == set(TASKS)
        for name, value in figures.items():
            assert alone[step][name] == pytest.approx(value, abs=2e-3), name
