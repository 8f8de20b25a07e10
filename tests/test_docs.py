"""The documentation holds: its commands parse, its links resolve, getting-started runs."""

from __future__ import annotations

import argparse
import importlib
import json
import math
import os
import re
import shlex
import socket
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from tiny import VOCAB, model_config, run_config

from llm_jax.cli import VERBS, Parser, main, parse, split_verb
from llm_jax.commands import launch_run
from llm_jax.commands.overrides import flag_names, override
from llm_jax.config import load, to_json
from llm_jax.launch import job
from llm_jax.launch.dataset import check_path

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
# `sh` blocks install or need a network; `text` blocks are no commands.
SHELLS = ("", "sh", "bash")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"(?<!`)`llm-jax ([^`<]+)`(?!`)")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
SHELL_OPERATORS = {"|", ">", "<", "&&", ";"}

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def blocks(page: Path, languages: tuple[str, ...]) -> list[str]:
    return [code for tag, code in FENCE.findall(page.read_text("utf-8")) if tag in languages]


def commands(page: Path) -> list[list[str]]:
    """What follows `llm-jax` on each command line of the page's shell blocks."""
    found = []
    for block in blocks(page, SHELLS):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True) if "llm-jax" in line else []
            if "llm-jax" in words:
                words = words[words.index("llm-jax") + 1 :]
                end = next((i for i, w in enumerate(words) if w in SHELL_OPERATORS), len(words))
                found.append(words[:end])
    return found


def verb_flags(verb: str) -> set[str]:
    """Every flag that the verb declares."""
    parser = Parser(add_help=False)
    parser.add_argument("--json")
    importlib.import_module(f"llm_jax.commands.{VERBS[verb][0]}").add_arguments(parser)
    return {flag for flag in parser._option_string_actions if flag.startswith("--")}


def config_flags(recipe: str = "tiny") -> set[str]:
    return flag_names(load(recipe))


def check_overrides(verb: str, args: argparse.Namespace) -> None:
    """The flags are fields; where the config exists, their values are valid too."""
    written = args.config is None or args.config.endswith(".json") or "/" in args.config
    if written:  # by an earlier command
        names = {flag for flag in args.overrides if flag.startswith("--")}
        assert names <= config_flags(), names - config_flags()
    else:
        config = override(args.config, args.overrides, verb=verb)
        if verb == "launch run":  # the machine is one that the job can have
            spec = launch_run.job_spec(args)
            job.check_mesh(spec, config)
            check_path(spec, config)


@pages
def test_every_command_parses(page: Path) -> None:
    for words in commands(page):
        verb, rest = split_verb(words)
        _, args = parse(verb, rest)
        if hasattr(args, "overrides"):
            check_overrides(verb, args)


@pytest.mark.parametrize("page", ["curation.md", "launch.md"])
def test_what_tasks_would_do_elsewhere(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The dry runs of verbs on data, which need neither Slurm nor Ray nor the text."""
    monkeypatch.chdir(tmp_path)
    dry = [words for words in commands(ROOT / "docs" / page) if "--dry-run" in words]
    dry = [words for words in dry if "data" in words[:3]]
    assert len(dry) == 2
    for words in dry:
        with pytest.raises(SystemExit) as end:
            main([*words, "--json"])
        assert not end.value.code
        actions = json.loads(capsys.readouterr().out)["actions"]
        kinds = {action["action"] for action in actions}
        assert kinds <= {"SubmitBatch", "SubmitRayJob", "RunOnRay"}, kinds
        assert len(actions) > 2
    assert list(tmp_path.iterdir()) == []


@pages
def test_every_command_inside_a_sentence_exists(page: Path) -> None:
    prose = FENCE.sub("", page.read_text("utf-8"))
    for line in INLINE.findall(prose):
        words = re.sub(r"\s+", " ", line).split()
        if words[0] in ("VERB", "--help"):
            continue
        verb, rest = split_verb(words)
        known = verb_flags(verb) | {"--help"} | (config_flags() if verb == "train" else set())
        used = {word for word in rest if word.startswith("--")}
        assert used <= known, f"`llm-jax {line}`: {used - known}"


@pages
def test_links_resolve(page: Path) -> None:
    for link in LINK.findall(page.read_text("utf-8")):
        if not re.match(r"[a-z]+:", link):
            path, _, anchor = link.partition("#")
            target = page.parent / path if path else page
            assert target.exists(), f"{page.name} links to {link}"
            assert not anchor or anchor in anchors(target), f"{page.name} links to {link}"


def anchors(page: Path) -> set[str]:
    """Names of the page's headings, as mkdocs makes them."""
    text = FENCE.sub("", page.read_text("utf-8"))
    plain = (
        re.sub(r"[^\w\s-]", "", h).strip().lower() for h in re.findall(r"^#+ (.*)$", text, re.M)
    )
    return {re.sub(r"[-\s]+", "-", heading) for heading in plain}


def test_command_line_page_lists_every_verb_and_flag() -> None:
    sections = dict(
        re.findall(
            r"^## (.*?)\n(.*?)(?=^## |\Z)", (ROOT / "docs/cli.md").read_text("utf-8"), re.M | re.S
        )
    )
    assert list(sections) == list(VERBS)
    for verb, section in sections.items():
        rows = "\n".join(line.split(" | ")[0] for line in section.splitlines() if line[:2] == "| ")
        named = set(re.findall(r"--[a-z][a-z-]*", rows))
        assert named == verb_flags(verb) - {"--json"}, verb


def test_readme_lists_every_verb() -> None:
    section = (ROOT / "README.md").read_text("utf-8").split("## Verbs")[1].split("##")[0]
    first_cells = " ".join(line.split("|")[1] for line in section.splitlines() if line[:3] == "| `")
    assert re.findall(r"`([^`]+)`", first_cells) == list(VERBS)


@pages
def test_files_of_the_repository_exist(page: Path) -> None:
    """Where a page names them by their path; the log and the decisions tell of their own time."""
    if page.name == "log.md" or page.parent.name == "adr":
        return
    named = re.findall(
        r"(?<![\w/.-])(?:llm_jax|tests|benchmarks)/[\w/-]+\.\w+", page.read_text("utf-8")
    )
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_file_map_names_what_exists_and_every_folder() -> None:
    section = (ROOT / "README.md").read_text("utf-8").split("## File map")[1]
    named, parents = set(), [ROOT]
    for line in FENCE.findall(section)[0][1].splitlines():
        indent, name = re.match(r"( *)(\S+)", line).groups()  # type: ignore[union-attr]
        path = parents[len(indent) // 2] / name
        parents[len(indent) // 2 + 1 :] = [path]
        assert path.is_dir() if name.endswith("/") else path.is_file(), path
        named.add(path)
    folders = {path.parent for path in (ROOT / "llm_jax").rglob("*.py")}
    assert folders <= named, folders - named


def test_the_architecture_names_files_that_exist_and_every_room() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    files = set(re.findall(r"`([\w/]+\.py)`", page))
    assert len(files) > 40
    assert [name for name in sorted(files) if not (ROOT / "llm_jax" / name).is_file()] == []
    rooms = {path.parent.name for path in (ROOT / "llm_jax").glob("*/__init__.py")}
    assert {room for room in rooms if f"{room}/" not in page} == set()


NEWCOMER = {
    "another activation": ("models/common/activations.py", "ACTIVATIONS"),
    "another schedule": ("train/optimizers/schedule.py", "learning_rate"),
    "a new chip": ("facts/hardware.py", "CHIPS"),
    "a new back end": ("launch/spec.py", "Backend"),
    "a new Hugging Face family": ("convert/families/__init__.py", "FAMILIES"),
    "a new metric of a step": ("train/step.py", "train_step"),
    "a step of a recipe": ("data/curate/recipe.py", "AnyStep"),
    "a new source of text": ("data/sources/__init__.py", "Source"),
}
"""What a newcomer wants to change → the file that the architecture's page sends him to, and what is
there."""


@pytest.mark.parametrize("change", NEWCOMER)
def test_the_architecture_sends_a_newcomer_to_the_right_file(change: str) -> None:
    page = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    (row,) = re.findall(rf"^\| {re.escape(change)} \|(.*)\|$", page, re.MULTILINE)
    file, name = NEWCOMER[change]
    folder = str(Path(file).parent)
    assert file in row or f"{folder}/" in row
    module = f"llm_jax.{file.removesuffix('.py').replace('/', '.')}".removesuffix(".__init__")
    assert hasattr(importlib.import_module(module), name)


def test_config_page_lists_every_recipe() -> None:
    section = (ROOT / "docs/config.md").read_text("utf-8").split("## Recipes")[1]
    listed = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    assert sorted(listed) == sorted(path.stem for path in (ROOT / "configs").glob("*.py"))
    numbers = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    small = {"tiny", "quickstart", "bert_tiny", "t5_tiny", "lstm_pairs_tiny", "word2vec_tiny"}
    small |= {"transformer_pairs_tiny"}
    assert f"The {numbers[len(set(listed) - small)]} large recipes" in section


def test_the_recipe_of_the_config_page_works_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (example,) = blocks(ROOT / "docs/config.md", ("python",))
    monkeypatch.chdir(tmp_path)
    Path("deeper.py").write_text(example, encoding="utf-8")
    config = load("deeper.py")
    assert (config.name, config.model.num_layers, config.model.qk_norm) == ("deeper", 4, True)


@pytest.mark.slow
def test_getting_started_runs(tmp_path: Path) -> None:
    """The guide's bash blocks, as one script in an empty folder."""
    script = "set -euo pipefail\n" + "\n".join(blocks(ROOT / "docs/getting-started.md", ("bash",)))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]

    lines = (tmp_path / "runs/first/metrics.jsonl").read_text("utf-8").splitlines()
    losses = {r["step"]: r["loss"] for r in map(json.loads, lines) if r["split"] == "validation"}
    assert set(losses) == {20, 30}
    assert losses[30] < losses[20] < math.log(4096)
    assert "Resuming runs/first after step 20: " in done.stderr
    difference = re.search(r"largest logit difference from transformers (\S+)", done.stdout)
    assert difference and float(difference[1]) < 1e-4
    assert json.loads((tmp_path / "planned.json").read_text("utf-8"))["steps"] > 0


@pytest.mark.slow
def test_two_hosts_page_trains_one_run(tiny_dataset: Path, tmp_path: Path) -> None:
    """The commands of both hosts, as two processes of this one."""
    model = model_config(vocab_size=VOCAB, num_layers=1)
    run = run_config(dataset=tiny_dataset, steps=3, model=model)
    (tmp_path / "run.json").write_text(to_json(run), "utf-8")
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    cpu = {"JAX_PLATFORMS": "cpu", "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo"}
    hosts = [
        subprocess.Popen(
            ["bash", "-c", code.replace("host-a:8476", address).replace("/shared", str(tmp_path))],
            cwd=tmp_path,
            env=os.environ | {"PATH": path} | cpu,
            stderr=subprocess.PIPE,
            text=True,
        )
        for code in blocks(ROOT / "docs/how-to/two-hosts.md", ("sh",))
    ]
    said = [host.communicate(timeout=300)[1] for host in hosts]
    assert [host.returncode for host in hosts] == [0, 0], said
    lines = (tmp_path / "run" / "metrics.jsonl").read_text("utf-8").splitlines()
    steps = [line["step"] for line in map(json.loads, lines) if line["split"] == "train"]
    assert steps == [1, 2, 3]


@pytest.mark.slow
@pytest.mark.skipif(
    find_spec("libtpu") is None, reason="needs the TPU compiler: pip install libtpu"
)
def test_preflight_guide_runs(tmp_path: Path) -> None:
    script = "set -euo pipefail\n" + "\n".join(blocks(ROOT / "docs/preflight.md", ("bash",)))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env=os.environ | {"PATH": path, "XDG_CACHE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "fits: peak" in done.stdout
    assert "multiple of 64, not 32" in done.stdout
    found = json.loads((tmp_path / "step.json").read_text("utf-8"))
    assert found["fits"]
    assert found["mesh"] == {"fsdp": 2, "tensor": 2}
