"""The command line's contract: cheap help, one JSON object, one-sentence errors, exit codes."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from tiny import run_config

from llm_jax import __version__
from llm_jax.cli import VERBS, main, parse
from llm_jax.commands.overrides import flag_names
from llm_jax.config import load, nearest, to_json
from llm_jax.facts.attached import WITHOUT_TPU, maybe_tpu


def call(argv: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `llm-jax argv`."""
    with pytest.raises(SystemExit) as end:
        main(argv)
    out, err = capsys.readouterr()
    return int(end.value.code or 0), out, err


HEAVY = ("jax", "numpy", "tyro", "flax", "optax", "orbax", "scipy", "matplotlib", "rich")


@pytest.mark.parametrize(
    "argv", [["--help"], ["--version"], ["train", "--help"], ["data", "build", "--help"]]
)
def test_help_imports_nothing_heavy(argv: list[str]) -> None:
    code = (
        "import sys\n"
        "from llm_jax.cli import main\n"
        "try:\n    main(sys.argv[1:])\n"
        "except SystemExit as end:\n"
        "    assert not end.code, end.code\n"
        f"print('heavy', *[name for name in {HEAVY} if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *argv], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    allowed = "heavy numpy" if argv[0] == "data" else "heavy"
    assert done.stdout.splitlines()[-1] in ("heavy", allowed)


def test_usage_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(["--help"], capsys)
    assert (code, err) == (0, "")
    for verb, (_, about) in VERBS.items():
        assert re.search(rf"^  {verb} +{re.escape(about)}$", out, re.MULTILINE)
    assert call([], capsys)[0] == 2
    assert call(["--version"], capsys)[1] == f"{__version__}\n"


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call([*verb.split(), "--help"], capsys)
    assert (code, err) == (0, "")
    usage, about = out.split("\n\n", 1)
    assert usage.startswith(f"usage: llm-jax {verb} ")
    assert f"llm-jax {verb} " in about, "an example"


BAD_JSON = '{"name": "x"}'


@pytest.mark.parametrize(
    ("argv", "code", "sentence"),
    [
        (["trian"], 2, "llm-jax has no verb 'trian': did you mean 'train'?"),
        (["tokenizer"], 2, "llm-jax tokenizer needs one more word: tokenizer train, tokenizer"),
        (
            ["data", "biuld"],
            2,
            "llm-jax data needs one more word: data curate, data classifier, data build, ",
        ),
        (["data", "build"], 2, "llm-jax data build: "),
        (
            ["data", "build", "--owt", "x"],
            2,
            "llm-jax data build has no flag '--owt': did you",
        ),
        (["data", "build", "--out", "x", "--clean", "aozroa"], 2, "--clean is 'aozroa': did you"),
        (
            ["data", "inspect", "x", "--jsn"],
            2,
            "llm-jax data inspect has no flag '--jsn': did you mean '--json'?",
        ),
        (
            ["train"],
            2,
            "llm-jax train needs a CONFIG: a recipe's name, a run.json or a run's folder.",
        ),
        (["train", "tyny"], 78, "There is no recipe 'tyny': did you mean 'tiny'?"),
        (["train", "no.json"], 78, "There is no config file 'no.json': check the path."),
        (["train", "bad.json"], 78, "run.out is missing: set it."),
        (
            ["train", "tiny", "--stps", "3"],
            2,
            "llm-jax train has no flag '--stps': did you mean '--steps'?",
        ),
        (
            ["train", "tiny", "--optim.lr", "1"],
            2,
            "llm-jax train has no flag '--optim.lr': did you mean '--optim.learning-rate'?",
        ),
        (
            ["train", "tiny", "--model.num_layer=3"],
            2,
            "llm-jax train has no flag '--model.num_layer=3': did you mean '--model.num-layers'?",
        ),
        (["train", "--steps=3"], 2, "llm-jax train needs a CONFIG"),
        (
            ["train", "tiny", "--learning-rate", "1"],
            2,
            "llm-jax train has no flag '--learning-r",
        ),
        (
            ["preflight", "tiny", "--topolgy", "v5p-8"],
            2,
            "llm-jax preflight has no flag '--topol",
        ),
        (["train", "tiny", "--steps", "many"], 2, "Error parsing --steps: invalid literal for int"),
        (["train", "tiny", "--steps"], 2, "Missing value for argument '--steps'. Expected 1"),
        (
            ["train", "tiny", "--compute.remat", "x"],
            2,
            "Invalid choice 'x' for argument '--compute.remat'. Expected one of ('none', 'dots'",
        ),
        (
            ["train", "tiny", "--compute.compiler", "scoped_vmem", "vmem"],
            2,
            "Invalid choice 'vmem' for argument '--compute.compiler'. Expected one of ('async_coll",
        ),
        (["train", "tiny", "--steps", "0"], 78, "run.steps is 0: it must be above 0."),
        (["train", "tiny", "--model.num-heads", "3"], 78, "model.num_heads is 3, which model.num"),
        (["train", "tiny", "--optim.learning-rate", "inf"], 78, "optim.learning_rate is inf: it"),
        (["train", "tiny", "--data.seq-len", "999"], 78, "data.seq_len is 999, longer than model"),
        (["train", "tiny", "--data.path", "nowhere"], 2, "There is no dataset in 'nowhere'"),
        (["train", "tiny", "--parallel.fsdp", "3"], 78, "parallel.data x fsdp is 2 x 3"),
        (
            ["train", "tiny", "--data.batch-size", "6"],
            78,
            "data.batch_size / compute.acc",
        ),
    ],
)
def test_mistakes_are_one_sentence(
    argv: list[str],
    code: int,
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.json").write_text(BAD_JSON)
    found, out, err = call(argv, capsys)
    assert (found, out) == (code, ""), err
    assert err.startswith(f"error: {sentence}"), err
    assert err.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["bad.json"], "nothing is made"


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("--optim.lr", ["--optim.learning-rate"]),
        ("--lr", ["--optim.learning-rate"]),
        ("--data.learning_rate", ["--optim.learning-rate"]),
        ("--batch-size=8", ["--data.batch-size"]),
        ("--warmup", ["--optim.warmup-steps"]),
    ],
)
def test_a_flag_is_found_by_section_and_field(word: str, meant: list[str]) -> None:
    said = nearest(word, flag_names(load("tiny")))
    assert re.findall("'(.*?)'", said) == meant


def test_of_many_flags_three_are_named_and_none_that_cannot_be_given() -> None:
    known = flag_names(load("tiny"))
    assert "--model.moe" not in known, "a part of the model that is not there has no flag"
    for word in ("--modell.x", "--zzz", "--frobnicate.all"):
        said = nearest(word, known)
        assert len(re.findall(r"--[a-z.-]+", said)) == 3, said
    assert nearest("--modell.x", known).startswith("the nearest are --model.")
    assert nearest("lunch", VERBS).count("'launch ") == 3
    assert nearest("z", ["a", "b"]) == "known: a, b."


def test_config_may_stand_behind_flags_of_fields(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["--parallel.data", "-1", "--compute.compiler", "scoped_vmem", "async_collectives"]
    _, args = parse("preflight", [*words, "--topology", "v5p-8", "tiny", "--steps=3"])
    assert (args.config, args.topology, args.overrides) == ("tiny", "v5p-8", [*words, "--steps=3"])
    code, out, _ = call(["launch", "run", "tiny", "--help"], capsys)
    assert code == 0
    assert "--accelerator" in out and "--optim.learning-rate" in out


def test_help_of_a_recipe_shows_its_values(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(["train", "tiny", "--help"], capsys)
    assert code == 0
    assert re.search(r"--optim\.learning-rate FLOAT[^-]*\(default: 0\.003\)", out)
    assert re.search(r"--steps INT[^-]*\(default: 200\)", out)


def test_help_of_a_field_is_wrapped_at_the_margin_only(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = call(["train", "mixtral_8x7b", "--help"], capsys)
    rows = out.splitlines()
    wrapped = [pair for pair in pairwise(rows) if all(re.match(r"[│ ] {7}\S", row) for row in pair)]
    assert len(wrapped) > 20
    for row, following in wrapped:
        room = len(row) - len(row.rstrip("│ "))
        assert room <= len(following.strip("│ ").split()[0]) + 2, (row, following)


@pytest.mark.slow
def test_flags_override_and_the_rest_stays(
    tmp_path: Path, tiny_dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = run_config(tmp_path / "no", tiny_dataset)
    (tmp_path / "run.json").write_text(to_json(config))
    out = tmp_path / "out"
    flags = ["--out", str(out), "--steps", "2", "--optim.warmup_steps=1", "--eval.every", "2"]
    flags += ["--model.vocab-size", "512", "--model.num-layers", "1", "--data.seed", "7"]
    code, said, err = call(["train", str(tmp_path / "run.json"), "--json", *flags], capsys)
    assert code == 0, err
    result = json.loads(said)
    assert said.count("\n") == 1
    assert (result["step"], result["tokens"]) == (2, 2 * 8 * 16)
    assert result["checkpoint"] == str(out / "checkpoints" / "2")
    assert {"loss", "bits_per_byte", "tokens_per_second", "mfu", "goodput"} <= set(result)
    assert 0 < result["goodput"] < 1
    saved = json.loads((out / "run.json").read_text())
    wanted = json.loads(to_json(config))
    wanted |= {"out": str(out), "steps": 2}
    wanted["optim"]["warmup_steps"] = 1
    wanted["eval"]["every"] = 2
    wanted["model"] |= {"vocab_size": 512, "num_layers": 1}
    wanted["data"]["seed"] = 7
    assert saved == wanted
    assert (out / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert list((out / "tensorboard").iterdir())
    code, said, _ = call(["train", str(out / "run.json")], capsys)
    assert code == 0
    assert said.startswith(f"step 2: validation loss {result['loss']:.4f}, ")


@pytest.mark.slow
def test_an_installed_tpu_compiler_is_silent_without_a_tpu(tmp_path: Path) -> None:
    if importlib.util.find_spec("libtpu") is None:
        pytest.skip("libtpu is not installed")
    if maybe_tpu():
        pytest.skip("there may be a TPU here")
    code = (
        "import jax\nfrom llm_jax.cli import main\n"
        "try: main()\nexcept SystemExit: print(jax.devices()[0].platform)"
    )
    environment = {k: v for k, v in os.environ.items() if k not in ("JAX_PLATFORMS", *WITHOUT_TPU)}
    done = subprocess.run(
        [sys.executable, "-c", code, "generate", str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.stdout == "cpu\n"
    assert re.fullmatch(r"error: There is no model in [^\n]+\n", done.stderr)
