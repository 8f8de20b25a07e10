"""The robust fit: recovery, honest intervals, diagnostics, law files, and refused input."""

import json

import numpy as np
import pytest

from llm_jax.cli import main
from llm_jax.config import UserError
from llm_jax.laws import lawfile
from llm_jax.laws.fitting import PARAMETERS, bootstrap, fit, huber, logarithms
from llm_jax.laws.objective import Objective
from llm_jax.laws.profiles import drop_sensitivity, envelope, isoflop
from llm_jax.laws.published import PRESETS
from llm_jax.laws.run_curves import Curve, read
from llm_jax.laws.run_losses import Runs

TRUTH = PRESETS["besiroglu-2024"]


def make(n: int, noise: float, seed: int, law=TRUTH) -> Runs:
    """Runs at random sizes and tokens with log-normal noise."""
    rng = np.random.default_rng(seed)
    params = np.exp(rng.uniform(np.log(5e7), np.log(1.5e10), n))
    tokens = np.exp(rng.uniform(np.log(2e9), np.log(4e11), n))
    loss = law.E + law.A * params**-law.alpha + law.B * tokens**-law.beta
    return Runs(params, tokens, loss * np.exp(noise * rng.standard_normal(n)))


@pytest.mark.parametrize("name", ["besiroglu-2024", "hoffmann-tex", "muennighoff-c4"])
def test_noise_free_runs_give_the_law_back(name):
    law = PRESETS[name]
    found = fit(make(40, 0.0, 1, law), bootstraps=0)
    for key in PARAMETERS:
        assert getattr(found, key) == pytest.approx(getattr(law, key), rel=1e-3)
    assert huber(make(40, 0.0, 1, law), found) < 1e-12


def test_outliers_hardly_move_the_fit():
    runs = make(60, 0.002, 3)
    spoiled = runs.loss.copy()
    spoiled[[5, 20, 41]] *= 1.5
    clean = fit(runs, bootstraps=0)
    robust = fit(Runs(runs.params, runs.tokens, spoiled), bootstraps=0)
    assert robust.alpha == pytest.approx(clean.alpha, rel=0.05)
    assert robust.loss(70e9, 1.4e12) == pytest.approx(clean.loss(70e9, 1.4e12), rel=0.005)


def test_gradient_is_the_derivative():
    objective = Objective(make(30, 0.02, 5))
    theta = objective.centre(logarithms(TRUTH)) + 0.01
    weights = np.random.default_rng(0).integers(0, 3, 30).astype(float)
    _, gradient = objective.value_and_gradient(theta, weights)
    for i in range(5):
        step = np.zeros(5)
        step[i] = 1e-7
        up, _ = objective.value_and_gradient(theta + step, weights)
        down, _ = objective.value_and_gradient(theta - step, weights)
        assert gradient[i] == pytest.approx((up - down) / 2e-7, rel=1e-4, abs=1e-9)


def test_unconverged_fit_is_refused(monkeypatch):
    """A fit that stops where it started has a gradient, and is no fit."""
    monkeypatch.setattr("llm_jax.laws.objective.solve_batch", lambda objective, theta, *rest: theta)
    monkeypatch.setattr("llm_jax.laws.objective.polish", lambda objective, theta, weights: theta)
    with pytest.raises(UserError, match="has not converged"):
        fit(make(30, 0.01, 0), bootstraps=0)


@pytest.mark.slow
def test_truth_lies_in_the_90_percent_interval():
    """100 seeded draws of 60 runs with 1% noise: each parameter, and the optimum's loss."""
    inside = dict.fromkeys((*PARAMETERS, "a", "loss"), 0)
    for seed in range(100):
        law = fit(make(60, 0.01, seed), bootstraps=400, seed=seed)
        draws = np.asarray(law.draws)
        low, high = np.quantile(draws, [0.05, 0.95], axis=0)
        for i, key in enumerate(PARAMETERS):
            inside[key] += low[i] <= getattr(TRUTH, key) <= high[i]
        exponent = draws[:, 4] / (draws[:, 3] + draws[:, 4])
        low_a, high_a = np.quantile(exponent, [0.05, 0.95])
        inside["a"] += low_a <= TRUTH.a <= high_a
        best = TRUTH.optimum(1e22)
        interval = law.interval(best.params, best.tokens)
        inside["loss"] += interval[0] <= best.loss <= interval[1]
    assert min(inside.values()) >= 85, inside


@pytest.mark.slow
def test_four_thousand_bootstraps_are_all_converged():
    """Speed is measured in the documentation; here: no sample of 250 runs is left unfinished."""
    objective = Objective(make(250, 0.01, 0))
    law = fit(make(250, 0.01, 0), bootstraps=0)
    theta = objective.centre(logarithms(law))
    draws = bootstrap(objective, theta, 4000, 0)
    weights = np.random.default_rng(0).multinomial(250, np.full(250, 1 / 250), size=4000)
    assert len(draws) == 4000
    plain = np.column_stack([np.log(draws[:, [1, 2, 0]]), draws[:, 3:]])
    for part in range(0, 4000, 500):
        rows = slice(part, part + 500)
        left = objective.relative_gradient(
            objective.centre(plain[rows]), weights[rows].astype(float)
        )
        assert left.max() < 1e-3


def isoflop_runs(noise: float) -> Runs:
    rng = np.random.default_rng(0)
    rows = []
    for flops in np.geomspace(6e18, 3e21, 7):
        for factor in np.geomspace(1 / 3, 3, 9):
            params = TRUTH.optimum(flops).params * factor
            tokens = flops / 6 / params
            loss = TRUTH.loss(params, tokens) * np.exp(noise * rng.standard_normal())
            rows.append((params, tokens, loss))
    return Runs(*np.array(rows).T)


def test_isoflop_parabolas_find_the_exponent():
    found, notes = isoflop(isoflop_runs(0.0))
    assert len(found.points) == 7
    assert found.a == pytest.approx(TRUTH.a, abs=0.01)
    assert notes == []
    edge = isoflop_runs(0.0)
    small = edge.params < np.array([TRUTH.optimum(c).params for c in edge.flops]) * 0.9
    none, notes = isoflop(edge.take(np.flatnonzero(small)))
    assert none.a is None
    assert len(notes) == 7
    assert "no minimum" in notes[0]


def test_envelope_finds_the_exponent():
    curves = []
    for params in np.geomspace(1e8, 1e10, 25):
        tokens = np.geomspace(0.5, 200, 60) * params
        curves.append(
            Curve(str(params), params, tuple(tokens), tuple(TRUTH.loss(params, t) for t in tokens))
        )
    assert envelope(curves).a == pytest.approx(TRUTH.a, abs=0.02)
    assert envelope(curves[:2]).a is None


def test_sensitivity_refits_without_the_highest_losses():
    runs = make(40, 0.0, 2)
    worst = int(runs.loss.argmax())
    spoiled = runs.loss.copy()
    spoiled[worst] *= 1.3
    runs = Runs(runs.params, runs.tokens, spoiled)
    rows = drop_sensitivity(runs, fit(runs, bootstraps=0))
    assert [row["dropped"] for row in rows] == [1, 2, 3, 4, 5]
    assert rows[0]["beta"] == pytest.approx(TRUTH.beta, rel=1e-3)


def test_law_file_round_trip(tmp_path):
    law = fit(make(30, 0.005, 0), bootstraps=20)
    lawfile.write(law, tmp_path / "law.json")
    back = lawfile.load(str(tmp_path / "law.json"))
    assert back.loss(1e9, 2e10) == law.loss(1e9, 2e10)
    assert back.interval(1e9, 2e10) == pytest.approx(law.interval(1e9, 2e10), rel=1e-6)
    assert back.fitted == law.fitted
    assert len(back.draws) == len(law.draws)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"version": 99}, "version 99"),
        ({"alpah": 1.0}, "did you mean 'alpha'"),
        ({"A": -1.0}, "law.A is -1.0"),
        ({"E": "low"}, "of type float"),
        ({"flops": [2.0, 1.0]}, r"\[smallest, largest\]"),
        ({"draws": [[1.0, 2.0]]}, "five numbers"),
        ({"counts": "some"}, "'non-embedding'"),
        ({"kind": "spline"}, "only 'parametric'"),
    ],
)
def test_bad_law_files_are_one_sentence(tmp_path, change, sentence):
    path = tmp_path / "law.json"
    lawfile.write(TRUTH, path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=sentence):
        lawfile.load(str(path))


def csv_of(runs: Runs) -> str:
    rows = zip(runs.params, runs.tokens, runs.loss, strict=True)
    return "params,tokens,loss\n" + "".join(f"{n!r},{d!r},{x!r}\n" for n, d, x in rows).replace(
        "np.float64(", ""
    ).replace(")", "")


def test_verb_writes_law_and_figure(tmp_path, capsys):
    (tmp_path / "runs.csv").write_text(csv_of(make(30, 0.0, 7)))
    out = tmp_path / "law.json"
    argv = ["fit", str(tmp_path / "runs.csv"), "--out", str(out), "--bootstraps", "50", "--json"]
    with pytest.raises(SystemExit) as stop:
        main(argv)
    assert stop.value.code == 0
    result = json.loads(capsys.readouterr().out)
    assert result["converged"] is True
    assert result["n"] == 30
    assert result["alpha"] == pytest.approx(TRUTH.alpha, rel=1e-3)
    assert set(result["intervals"]) == set(PARAMETERS)
    assert (tmp_path / "law.png").read_bytes()[:4] == b"\x89PNG"
    assert lawfile.load(str(out)).beta == pytest.approx(TRUTH.beta, rel=1e-3)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (csv_of(make(6, 0, 0)).rsplit("\n", 2)[0] + "\n", "at least six runs"),
        ("params,tokens,loss\n" + "1e8,2e9,3\n" * 7, "same model size"),
        ("params,tokens,loss\n" + "".join(f"{i}e8,2e9,3\n" for i in range(1, 9)), "same number"),
        (csv_of(make(6, 0, 0)) + "1e8,2e9,nan\n", "line 8: loss is 'nan'"),
        (csv_of(make(6, 0, 0)) + "1e8,-2e9,3\n", "tokens is '-2e9'"),
        ("params,loss\n1,2\n", "no column 'tokens'"),
    ],
)
def test_bad_runs_are_one_sentence(tmp_path, capsys, text, sentence):
    path = tmp_path / "runs.csv"
    path.write_text(text)
    with pytest.raises(SystemExit) as stop:
        main(["fit", str(path), "--out", str(tmp_path / "law.json")])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1
    assert not (tmp_path / "law.json").exists()


def test_run_folders_are_read(tmp_path):
    """Validation lines alone count, and the later of two lines of the same step (a resume)."""
    from llm_jax.config import ModelConfig, RunConfig, to_json
    from llm_jax.facts.counts import non_embedding_parameters, total_parameters

    model = ModelConfig(
        vocab_size=512, num_layers=2, d_model=64, num_heads=2, num_kv_heads=2, head_dim=32,
        d_ff=128, max_seq_len=1024,
    )  # fmt: skip
    config = RunConfig(name="small", out="x", steps=200, model=model)
    folder = tmp_path / "small"
    folder.mkdir()
    (folder / "run.json").write_text(to_json(config))
    lines = [
        {"split": "train", "step": 10, "tokens": 100, "loss": 9.0},
        {"split": "validation", "step": 10, "tokens": 100, "loss": 5.0},
        {"split": "validation", "step": 20, "tokens": 200, "loss": 4.5},
        {"split": "validation", "step": 20, "tokens": 200, "loss": 4.0},
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (curve,) = read([folder], "all")
    assert curve.params == total_parameters(model)
    assert curve.tokens == (100.0, 200.0)
    assert curve.loss == (5.0, 4.0)
    assert read([folder], "non-embedding")[0].params == non_embedding_parameters(model)
    (folder / "metrics.jsonl").write_text('{"split":"validation","step":1,"tokens":9,"loss":NaN}\n')
    with pytest.raises(UserError, match="line 1: loss is nan"):
        read([folder], "all")
