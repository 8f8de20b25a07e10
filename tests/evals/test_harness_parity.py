"""Our numbers and those of lm-eval's own `hf` model, on the exported files of the same model."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from task_run import random_run

from llm_jax.evals.tasks.catalog import Settings, load_tasks
from llm_jax.evals.tasks.harness import evaluate_loaded
from llm_jax.language_model import LanguageModel, load_model

pytest.importorskip("lm_eval")
FIVE = ["copying_en", "counters_ja", "grammar_ja", "needle_en", "stdlib_en"]
"""Empty contexts, contexts beyond the model's, Japanese bytes, solved examples."""


@pytest.fixture(scope="module")
def model(tiny_dataset, tmp_path_factory) -> tuple[LanguageModel, Path]:
    folder = random_run(tmp_path_factory.mktemp("run") / "run", tiny_dataset)
    return load_model(folder), folder


def asked(model, names, **wanted):
    return evaluate_loaded(model, load_tasks(names, Settings()), samples=True, **wanted)


@pytest.mark.slow
def test_log_likelihoods_and_accuracies_are_those_of_lm_evals_own_model(
    model, tmp_path, monkeypatch, capsys
):
    pytest.importorskip("torch")
    from verb_calls import call_json

    ours, folder = model
    exported = tmp_path / "hf"
    call_json(capsys, "export", folder, "--to", "hf", exported, "--no-check", "--dtype", "float32")
    theirs = importlib.import_module("lm_eval.models.huggingface").HFLM(
        pretrained=str(exported), device="cpu", dtype="float32", batch_size=8
    )
    found = asked(ours, FIVE, limit=12, few_shot=2)
    loaded = load_tasks(FIVE, Settings())
    from llm_jax.evals.tasks import model as ours_for_them
    from llm_jax.evals.tasks.harness import Figure

    class Theirs(ours_for_them.HarnessModel):
        """Asked in the same way, answered by them."""

        def loglikelihood(self, requests, disable_tqdm=True):
            return theirs.loglikelihood(requests, disable_tqdm=True)

    monkeypatch.setattr(ours_for_them, "HarnessModel", Theirs)
    wanted = evaluate_loaded(ours, loaded, samples=True, limit=12, few_shot=2)
    assert sum(one.truncated for one in found.tasks.values()) > 0
    for name in FIVE:
        mine, reference = found.samples[name], wanted.samples[name]
        assert len(mine) == len(reference) == 12
        for a, b in zip(mine, reference, strict=True):
            assert a["arguments"] == b["arguments"]
            for (log_prob, greedy), (other, same) in zip(
                a["filtered_resps"], b["filtered_resps"], strict=True
            ):
                assert log_prob == pytest.approx(other, abs=1e-4, rel=0)
                assert greedy == same
        for metric in ("acc", "exact_match"):
            assert found.tasks[name].metrics[metric].value == (
                wanted.tasks[name].metrics[metric].value
            )
        assert isinstance(found.tasks[name].metrics["acc"], Figure)
    text = "def f(x):\n    return x + 1\n" * 40
    request = [type("Request", (), {"args": (text,), "task_name": "rolling"})]
    rolled = ours_for_them.HarnessModel.loglikelihood_rolling(Theirs(ours), request)
    assert rolled[0] == pytest.approx(theirs.loglikelihood_rolling(request)[0], rel=1e-5)
