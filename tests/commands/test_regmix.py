"""`data mix --method regmix` and `ladder --mixture`, with real runs of seconds."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llm_jax.cli import main
from llm_jax.commands import mix_proxies
from llm_jax.config import MixtureConfig, RunConfig, read_config, to_json
from llm_jax.data.build import BuildSpec, build
from llm_jax.data.sources import FileSource
from llm_jax.data.tokenizers import Tokenizer
from llm_jax.laws.run_curves import records

BUDGET = ["--flops", "1e11", "--proxies", "8", "--chip", "a100", "--seq-len", "64"]


def call(capsys: pytest.CaptureFixture[str], *words: Any, code: int = 0) -> tuple[Any, str]:
    """What the command prints with `--json` (None after an error), and its standard error."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        main([*map(str, words), *(["--json"] if code == 0 else [])])
    shown = capsys.readouterr()
    assert end.value.code == code, shown.err
    return (json.loads(shown.out) if code == 0 else None), shown.err


@pytest.fixture(scope="module")
def sources(
    tmp_path_factory: pytest.TempPathFactory, tiny_dataset: Path, three_sources: dict[str, Path]
) -> dict[str, Path]:
    """Python code, and lines of numbers, with one tokenizer."""
    folder = tmp_path_factory.mktemp("numbers")
    rows = (f"{n} squared is {n * n}, and its cube is {n**3}.\n" * 2 for n in range(9000))
    lines = [json.dumps({"text": row}) for row in rows]
    (folder / "numbers.jsonl").write_text("\n".join(lines), encoding="utf-8")
    spec = BuildSpec(
        sources=(FileSource(folder / "numbers.jsonl", licence="CC0-1.0"),),
        tokenizer=Tokenizer.load(tiny_dataset / "tokenizer.model"),
        validation_fraction=0.05,
    )
    build(spec, folder / "numbers", lambda phase, done, total: None)
    return {"_code": three_sources["web"], "numbers": folder / "numbers"}


@pytest.fixture(scope="module")
def words(sources: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A call whose proxies are made."""
    named = [f"{name}={path}" for name, path in sources.items()]
    out = tmp_path_factory.mktemp("regmix") / "proxies"
    made = ["data", "mix", *named, "--tokens", "400k", "--method", "regmix", *BUDGET]
    made += ["--out", str(out)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("llm_jax.commands.mix_proxies.train", train_here)
        with pytest.raises(SystemExit) as end:
            main(made)
    assert end.value.code == 0
    return made


def train_here(config: RunConfig, which: str) -> None:
    """As `recorded_runs.train` in a process of its own, which would compile each time."""
    on_all = replace(config, parallel=replace(config.parallel, data=8))
    with pytest.raises(SystemExit) as end:
        file = Path(config.out + ".json")
        file.parent.mkdir(exist_ok=True)
        file.write_text(to_json(on_all))
        main(["train", str(file), "--json"])
    assert end.value.code == 0, which


@pytest.mark.slow
def test_proxies_are_made_once_and_give_weights(
    words: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "mixture.json"
    found, said = call(capsys, *words, "--write", file)
    assert said.count("already done") == 8 and "0 proxy runs" in said
    assert "8 of 8 are made" in said
    regmix, weights = found["regmix"], found["weights"]
    assert sum(weights.values()) == pytest.approx(1) and found["method"] == "regmix"
    assert all(0.02 < weight < 0.98 for weight in weights.values())
    assert found["above_cap"] == []
    assert regmix["fit"]["r2"] > 0.5 and regmix["fit"]["error"] < 0.2
    assert regmix["fit_by_source"]["numbers"]["r2"] > 0.5
    assert regmix["predicted_loss"] <= regmix["predicted_proportional"] + 1e-6
    assert set(regmix["beyond_proxies"]) <= {"_code", "numbers"}
    mixture = read_config(file, MixtureConfig, "data.mixture")
    assert {a.source: a.weight for a in mixture.stages[0].read} == weights
    # Each proxy is a run of its own shares, and differs in them alone.
    out = Path(regmix["out"])
    configs = [read_config(one, RunConfig) for one in sorted(out.glob("proxy-*/run.json"))]
    assert len(configs) == 8 and len({one.model for one in configs}) == 1
    assert len({one.data.mixture for one in configs}) == 8
    last = [records(out / one.name / "metrics.jsonl", "validation")[-1] for one in configs]
    means = [(one["loss/_code"] + one["loss/numbers"]) / 2 for one in last]
    assert min(means) == pytest.approx(regmix["best_proxy"])
    _, said = call(capsys, *words, "--write", file, code=2)
    assert f"--write '{file}' exists" in said
    call(capsys, *words, "--write", file, "--overwrite")


@pytest.mark.slow
def test_a_target_and_a_fit_that_explains_nothing(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    mean, _ = call(capsys, *words)
    found, said = call(capsys, *words, "--target", "numbers")
    assert said.count("already done") == 8
    assert found["weights"]["numbers"] > mean["weights"]["numbers"]
    assert found["regmix"]["target"] == "numbers"
    _, said = call(capsys, *words, "--max-epochs", "3.9", code=2)
    assert "holds a regmix with other settings (max_epochs 4.0 → 3.9)" in said
    monkeypatch.setattr(mix_proxies, "LEAST_R2", 1.1)
    _, said = call(capsys, *words, code=2)
    assert "explains" in said and "at least 110% is needed: give more --proxies" in said


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--method", "regmix"], "takes one budget: give --flops or --minutes"),
        (["--method", "regmix", "--flops", "1e6"], "too little to learn from"),
        (["--method", "regmix", "--flops", "1e18"], "Each proxy would read"),
        (["--method", "regmix", "--flops", "1e11", "--target", "cod"], "did you mean '_code'?"),
        (["--method", "regmix", "--flops", "1e11", "--proxies", "3"], "a fit needs 8 or more"),
        (["--method", "regmix", "--flops", "1e11", "--chip", "v5x"], "'v5e' or 'v5p'"),
        (["--flops", "1e11"], "--flops is for --method regmix"),
        (["--weights", "1", "1", "--method", "regmix", "--out", "x"], "--out is for --method"),
    ],
)
def test_regmix_refuses(
    sources: dict[str, Path],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    more: list[str],
    sentence: str,
) -> None:
    named = [f"{name}={path}" for name, path in sources.items()]
    chip = ["--chip", "a100"] if "regmix" in more and not {"--chip", "--weights"} & {*more} else []
    out = ["--out", str(tmp_path / "out")] if chip else []
    _, said = call(capsys, "data", "mix", *named, "--tokens", "200k", *more, *chip, *out, code=2)
    assert sentence in said
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_law_moves_to_a_mixture_and_plans_it(
    sources: dict[str, Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from llm_jax.laws import lawfile
    from llm_jax.laws.law import Fitted, Parametric, Recipe

    named, file = [f"{name}={path}" for name, path in sources.items()], tmp_path / "mixture.json"
    mix = ["data", "mix", *named, "--tokens", "200k"]
    call(capsys, *mix, "--weights", "3", "1", "--write", file)
    law = Parametric(
        name="tiny", source="test", counts="all", E=2.0, A=100.0, B=300.0, alpha=0.4, beta=0.5,
        fitted=Fitted((1e9, 1e11), (1e4, 1e5), (1e4, 1e6)),
        recipe=Recipe(rule="small", family="llama", seq_len=64, vocab_size=512,
                      text="other text", fingerprint="another"),
    )  # fmt: skip
    lawfile.write(law, tmp_path / "law.json")
    ladder = ["ladder", "--anchor", tmp_path / "law.json", "--mixture", file, "--chip", "a100"]
    ladder += ["--flops", "1e10", "--out", tmp_path / "anchor"]
    found, _ = call(capsys, *ladder)
    run = tmp_path / "anchor" / found["anchor"]["name"]
    mixture = read_config(run / "run.json", RunConfig).data.mixture
    assert mixture == read_config(file, MixtureConfig, "data.mixture")
    (last,) = records(run / "metrics.jsonl", "validation")[-1:]
    assert found["anchor"]["loss"] == last["loss"]
    assert last["loss"] == pytest.approx(0.75 * last["loss/_code"] + 0.25 * last["loss/numbers"])
    page = Path(call(capsys, "report", run)[0]["html"]).read_text("utf-8")
    assert re.search(r"<text[^>]*>_code</text>", page), "the legend has names that begin with _"
    plan = ["plan", "--flops", "1.7e10", "--chip", "a100", "--chips", 1, "--tokens", 60000]
    planned, _ = call(capsys, *plan, "--law", found["law"], "--mixture", file)
    assert not any("another dataset" in warning for warning in planned["warnings"])
    call(capsys, *mix, "--weights", "1", "1", "--write", file, "--overwrite")
    planned, _ = call(capsys, *plan, "--law", found["law"], "--mixture", file)
    assert any("another dataset (0.75 _code, 0.25 numbers)" in w for w in planned["warnings"])
    _, said = call(capsys, *ladder, code=2)
    assert "holds a ladder with other settings" in said
    for wrong in ([], ["--data", sources["_code"], "--mixture", file]):
        _, said = call(capsys, "ladder", *wrong, "--flops", "1e11", "--chip", "a100", code=2)
        assert "A ladder reads one text: give --data DIR or --mixture FILE." in said


def test_a_ladder_of_a_mixture_stays_within_its_smallest_source(
    sources: dict[str, Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    named, file = [f"{name}={path}" for name, path in sources.items()], tmp_path / "mixture.json"
    call(capsys, "data", "mix", *named, "--tokens", "200k", "--weights", "1", "9", "--write", file)
    sizes = call(capsys, "data", "mix", *named, "--tokens", "1k")[0]["unique_tokens"]
    least = int(min(sizes["_code"] / 0.1, sizes["numbers"] / 0.9))
    ladder = ["ladder", "--mixture", file, "--flops", "1e15", "--chip", "a100"]
    _, said = call(capsys, *ladder, "--out", tmp_path / "ladder", code=2)
    assert f"{file} has only {least:,}" in said
