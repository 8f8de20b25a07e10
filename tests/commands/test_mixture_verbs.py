"""`data mix`, `plan --mixture`, `train --mixture`, `lineage`, and `export --release`, as users call
them: a general model from public text, a domain model, and a branch that never leaves."""

from __future__ import annotations

import json
import re
import sysconfig
from pathlib import Path
from typing import Any

import pytest
from tiny import VOCAB, model_config, run_config

from llm_jax.cli import main
from llm_jax.commands.plan_mixture import text_of_mixture
from llm_jax.config import DataConfig, EvalConfig, UserError, load, to_json
from llm_jax.data.build import BuildSpec, build
from llm_jax.data.mixing import temperature, unimax
from llm_jax.data.sources import FileSource
from llm_jax.data.tokenizers import Tokenizer
from llm_jax.runs.history import read_history

SOURCES = {
    "web": ("json", "PSF-2.0", "public"),
    "papers": ("email", "CC-BY-4.0", "public"),
    "ward": ("logging", "hospital", "restricted"),
    "notes": ("concurrent/futures", "unknown", "internal"),
}


def call(capsys: pytest.CaptureFixture[str], *words: Any, code: int = 0) -> Any:
    """What the command prints with `--json`; after an error, its sentence."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        main([*map(str, words), *(["--json"] if code == 0 else [])])
    shown = capsys.readouterr()
    assert end.value.code == code, shown.err
    return json.loads(shown.out) if code == 0 else shown.err.splitlines()[-1]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, tiny_dataset: Path) -> dict[str, Path]:
    stdlib, out = Path(sysconfig.get_path("stdlib")), tmp_path_factory.mktemp("classes")
    tokenizer = Tokenizer.load(tiny_dataset / "tokenizer.model")
    for name, (package, licence, class_) in SOURCES.items():
        source = FileSource(stdlib / package, licence=licence, class_=class_, given_name=name)
        spec = BuildSpec(sources=(source,), tokenizer=tokenizer, validation_fraction=0.05)
        build(spec, out / name, lambda phase, done, total: None)
    return {name: out / name for name in SOURCES}


@pytest.fixture(scope="module")
def runs(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """general: web and papers; domain: with its weights, papers; ward, notes: its branches."""
    out = tmp_path_factory.mktemp("runs")
    config = run_config(
        out / "general",
        name="general",
        steps=4,
        model=model_config(vocab_size=VOCAB, num_layers=1),
        data=DataConfig(path=str(folders["web"]), seq_len=16, batch_size=8),
        eval=EvalConfig(every=100, batches=1),
    )
    (out / "general.json").write_text(to_json(config))
    for name, words in {"mix": ("web", "papers"), "ward": ("papers", "ward")}.items():
        sources = [f"{one}={folders[one]}" for one in words]
        mix = ["data", "mix", *sources, "--tokens", "512", "--weights", "3", "1"]
        quiet(*mix, "--write", out / f"{name}.json")
    quiet("train", out / "general.json", "--mixture", out / "mix.json")
    quiet("train", "--init", f"{out}/general@4", "--out", out / "domain", "--steps", 3,
          "--data.path", folders["papers"])  # fmt: skip
    quiet("train", "--branch", out / "domain", "--out", out / "ward", "--steps", 5,
          "--mixture", out / "ward.json")  # fmt: skip
    quiet("train", "--branch", out / "domain", "--out", out / "notes", "--steps", 5,
          "--data.path", folders["notes"])  # fmt: skip
    return {name: out / name for name in ("general", "domain", "ward", "notes")}


def quiet(*words: Any) -> None:
    with pytest.raises(SystemExit) as end:
        main([*map(str, words), "--json"])
    assert end.value.code == 0, words


def test_unimax_is_the_published_example() -> None:
    """The sizes and the result of the reference implementation's own example."""
    sizes = {
        "swe": 179955884499.0,
        "fas": 184595788282.0,
        "ekk": 42541080893.0,
        "isl": 10027573389.0,
        "fao": 549707867.0,
    }
    found = unimax(sizes, 25e10, 4)
    wanted = {"fao": 0.0087953, "isl": 0.1604412} | dict.fromkeys(("swe", "fas", "ekk"), 0.2769212)
    assert found == pytest.approx(wanted, abs=5e-8)


def test_the_epochs_that_unimax_asks_for_are_enough() -> None:
    sizes = {"a": 59_769.0}
    with pytest.raises(UserError, match="in 4 epochs") as caught:
        unimax(sizes, 1e9, 4)
    named = re.search(r"--max-epochs to ([\d.]+) or more", str(caught.value))
    assert named and unimax(sizes, 1e9, float(named[1])) == {"a": 1.0}


def test_temperature_flattens() -> None:
    assert temperature({"a": 900.0, "b": 100.0}, 1) == pytest.approx({"a": 0.9, "b": 0.1})
    assert temperature({"a": 900.0, "b": 100.0}, 2) == pytest.approx({"a": 0.75, "b": 0.25})


def test_data_mix_shows_epochs(
    folders: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    sources = [f"{name}={folders[name]}" for name in ("web", "papers")]
    made = call(capsys, "data", "mix", *sources, "--tokens", "100k", "--max-epochs", "2")
    sizes = made["unique_tokens"]
    small = min(sizes["web"] * 2, 50_000)
    assert made["weights"]["web"] == pytest.approx(small / 100_000)
    assert sum(made["weights"].values()) == pytest.approx(1)
    for name, epochs in made["epochs"].items():
        assert epochs == pytest.approx(made["weights"][name] * 100_000 / sizes[name])
        assert epochs <= 2.0001
    assert made["above_cap"] == []
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["data", "mix", *sources, "--tokens", "10M", "--weights", "1", "1"])
    assert "above 4" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["web"], "'web' is not a source: write NAME=DIR"),
        (["web=nowhere"], "There is no dataset in 'nowhere'"),
        (["web=WEB", "web=WEB"], "The source 'web' is there twice"),
        (["web=WEB", "--weights", "0"], "one of them above 0"),
        (["web=WEB", "--weights", "1", "2"], "--weights has 2 numbers for 1 sources"),
        (["web=WEB", "--max-epochs", "0.001"], "epochs: raise --max-epochs to"),
        (["web=WEB", "--temperature", "0"], "--temperature is 0: it must be above 0"),
        (["web=WEB", "--write", "WEB/dataset.json"], "dataset.json' exists: choose another file"),
    ],
)
def test_data_mix_refuses(
    folders: dict[str, Path],
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    sentence: str,
) -> None:
    words = [word.replace("WEB", str(folders["web"])) for word in words]
    assert sentence in call(capsys, "data", "mix", *words, "--tokens", "1M", code=2)


@pytest.mark.slow
def test_a_plan_takes_the_mixture_s_sources(
    runs: dict[str, Path],
    folders: dict[str, Path],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    flops = ["--flops", "1e15", "--chip", "v5e"]
    words = ["plan", *flops, "--mixture", runs["general"].parent / "mix.json"]
    made = call(capsys, *words, "--write", tmp_path / "run.json", "--anyway")
    assert {one["name"]: one["share"] for one in made["sources"]} == {"web": 0.75, "papers": 0.25}
    sizes = {
        name: json.loads((folders[name] / "dataset.json").read_text())["splits"]["train"]["tokens"]
        for name in ("web", "papers")
    }
    assert {one["name"]: one["unique_tokens"] for one in made["sources"]} == sizes
    written = json.loads((tmp_path / "run.json").read_text())["data"]
    assert written["path"] == "" and len(written["mixture"]["sources"]) == 2
    again = call(capsys, "plan", "--config", tmp_path / "run.json", "--chip", "v5e")
    assert {one["name"] for one in again["sources"]} == {"web", "papers"}


def test_a_run_of_a_mixture_read_the_text_of_a_law_of_it(runs: dict[str, Path]) -> None:
    general, domain = (
        read_history(runs[name], load(str(runs[name]))) for name in ("general", "domain")
    )
    text = text_of_mixture(str(runs["general"].parent / "mix.json"))
    assert [entry.fingerprint for entry in general.entries] == [text.fingerprint]
    assert text.fingerprint not in [entry.fingerprint for entry in domain.entries]


def test_the_lineage_of_a_branch(runs: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    made = call(capsys, "lineage", runs["ward"])
    step = 8 * 16
    assert (made["run"], made["step"], made["tokens"]) == ("ward", 5, 5 * step)
    assert [(one["run"], one["first"], one["end"]) for one in made["stages"]] == [
        ("domain", 0, 3),
        ("ward", 3, 5),
    ]
    assert [(one["kind"], one["name"], one["step"]) for one in made["parents"]] == [
        ("run", "general", 4)
    ]
    assert made["branches"][0]["name"] == "domain" and made["branches"][0]["step"] == 3
    sources = made["sources"]
    assert {name: one["classes"] for name, one in sources.items()} == {
        "web": ["public"],
        "papers": ["public"],
        "ward": ["restricted"],
    }
    assert sources["web"]["read_by"] == {"general": pytest.approx(3 * step, abs=16)}
    assert sum(one["tokens"] for one in sources.values()) == 9 * step
    tree = "\n".join(made["tree"])
    assert "began with the weights of general, step 4" in tree
    assert "ward (licence: hospital, restricted)" in tree and "began with random weights" in tree
    before = call(capsys, "lineage", f"{runs['ward']}@3")
    assert [one["run"] for one in before["stages"]] == ["domain"]
    assert "ward" not in before["sources"]
    assert "has no checkpoint of step 4" in call(capsys, "lineage", f"{runs['ward']}@4", code=2)


def test_what_may_be_public(
    runs: dict[str, Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def export(name: str, *words: Any, code: int = 0) -> Any:
        to = ["--to", "hf", tmp_path / name, "--no-check"]
        return call(capsys, "export", runs[name], *to, *words, code=code)

    refused = export("ward", "--release", "public", code=2)
    lineage = call(capsys, "lineage", runs["ward"])
    read = lineage["sources"]["ward"]["tokens"]
    assert f"ward (class restricted, {read:,} tokens)" in refused
    assert not (tmp_path / "ward").exists()
    assert "class restricted" in export("ward", "--release", "public", "--vouch", "ward", code=2)
    refused = export("notes", "--release", "public", code=2)
    assert "notes (class internal, 256 tokens)" in refused
    assert "notes (licence unknown, 256 tokens)" in refused and "--vouch 'notes'" in refused
    assert "'nots', which the model has not read" in export(
        "notes", "--release", "public", "--vouch", "nots", code=2
    )
    assert "--vouch is for --release public" in export("notes", "--vouch", "notes", code=2)
    assert export("notes", "--release", "public", "--vouch", "notes")["vouched"] == ["notes"]
    assert export("domain", "--release", "public")["release"] == "public"
    card = (tmp_path / "domain" / "README.md").read_text()
    assert 'license_name: "PSF-2.0, CC-BY-4.0"' in card
    assert "| general | web | web | PSF-2.0 | public | 384 |" in card
    assert "| domain | papers | papers | CC-BY-4.0 | public | 384 |" in card
    export("ward")  # for one's own house


@pytest.mark.slow
def test_losses_by_source_in_eval_and_report(
    runs: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    made = call(capsys, "eval", runs["general"])
    by_name = {name.removeprefix("validation split of "): o for name, o in made["texts"].items()}
    assert set(by_name) == {"web", "papers"}
    mean = 0.75 * by_name["web"]["loss"] + 0.25 * by_name["papers"]["loss"]
    assert made["loss"] == pytest.approx(mean, rel=1e-9)
    assert made["tokens"] == sum(one["tokens"] for one in by_name.values())
    grams = call(capsys, "eval", runs["general"], "--ngram", "2")["ngram"]
    whole, read = grams.values()
    assert [*grams] == ["whole train splits", "as many tokens of each source as the run"]
    lineage = call(capsys, "lineage", runs["general"])["sources"]
    assert read["trained_tokens"] == sum(one["tokens"] for one in lineage.values()) == 512
    for gram in (whole, read):
        own = {name.rpartition(" ")[2]: one for name, one in gram["texts"].items()}
        for name in ("web", "papers"):
            assert own[name]["tokens"] == by_name[name]["tokens"]
        mean = 0.75 * own["web"]["loss"] + 0.25 * own["papers"]["loss"]
        assert gram["loss"] == pytest.approx(mean, rel=1e-9)
    assert whole["loss"] < read["loss"]
    call(capsys, "report", runs["general"])
    page = (runs["general"] / "report.html").read_text()
    assert "Loss by source" in page and "Source papers" in page
    assert (runs["general"] / "loss.png").stat().st_size > 10_000


def test_train_takes_one_of_mixture_and_path(
    runs: dict[str, Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = ["train", runs["general"].parent / "general.json", "--out", tmp_path / "x"]
    mixture = ["--mixture", runs["general"].parent / "mix.json"]
    both = call(capsys, *words, *mixture, "--data.path", "data/x", code=2)
    assert "--mixture and --data.path both say what is read" in both
    (tmp_path / "bad.json").write_text('{"sources": [], "stages": []}')
    said = call(capsys, *words, "--mixture", tmp_path / "bad.json", code=78)
    assert "data.mixture.sources is empty" in said


def test_a_launcher_looks_at_every_source(
    runs: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["launch", "run", runs["general"] / "run.json", "--name", "x", "--out", "gs://b/x"]
    words += ["--accelerator", "v5p-8", "--backend", "tpu", "--project", "p"]
    words += ["--image", f"i@sha256:{0:064}"]
    said = call(capsys, *words, "--zone", "us-east5-a", "--dry-run", code=78)
    assert "data.mixture's source 'web' is" in said and "hosts of the tpu back end cannot" in said
