"""The gcloud commands of guides and error sentences are in the reference, with their flags."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = json.loads(Path(__file__).with_name("gcloud_reference.json").read_text("utf-8"))
COMMANDS = {tuple(name.split()): set(flags) for name, flags in REFERENCE["commands"].items()}
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
SOURCES = sorted((ROOT / "llm_jax" / "launch").rglob("*.py"))
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FLAG = re.compile(r"--[a-z][a-z-]*")


def unknown(command: str) -> str | None:
    """What the reference does not have of a command, or None."""
    words = command.split()
    known = [name for name in COMMANDS if tuple(words[1 : len(name) + 1]) == name]
    if not known:
        return f"no command {command!r}"
    flags = set(FLAG.findall(command))
    strange = flags - COMMANDS[max(known, key=len)] - set(REFERENCE["wide"])
    return f"{command!r} has {sorted(strange)}" if strange else None


def in_blocks(page: Path) -> list[str]:
    """The gcloud commands of a page's shell blocks."""
    found = []
    for tag, block in FENCE.findall(page.read_text("utf-8")):
        if tag in ("sh", "bash"):
            for line in block.replace("\\\n", " ").splitlines():
                line = re.sub(r"\s#.*", "", line)
                found += [m[1] for m in re.finditer(r"(?:^|\$\()(gcloud [^|&;]*)", line)]
    return found


def in_sentences(text: str) -> list[str]:
    """The gcloud commands of a text, each up to the end of its clause."""
    return [m[0].rstrip(". ") for m in re.finditer(r"gcloud [a-z][^`,;:)']*", text)]


def texts(source: Path) -> list[str]:
    """The strings of a Python file, with X for what is filled in."""
    found = []
    for node in ast.walk(ast.parse(source.read_text("utf-8"))):
        if isinstance(node, ast.JoinedStr):
            parts = [v.value if isinstance(v, ast.Constant) else "X" for v in node.values]
            found.append("".join(parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.append(node.value)
    return [text for text in found if "gcloud " in text]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_of_a_page_are_in_the_reference(page: Path) -> None:
    inline = re.findall(r"`(gcloud [a-z][^`…]*)", FENCE.sub("", page.read_text("utf-8")))
    wrong = [unknown(" ".join(one.split())) for one in [*in_blocks(page), *inline]]
    assert [one for one in wrong if one] == []


def test_commands_of_error_sentences_are_in_the_reference() -> None:
    found = [c for source in SOURCES for text in texts(source) for c in in_sentences(text)]
    named = [c for c in found if c.split()[1] not in ("takes", "own")]
    complete = [c for c in named if not any(c == f"gcloud {' '.join(n[:2])}" for n in COMMANDS)]
    assert len(complete) > 12
    assert [w for w in map(unknown, complete) if w] == []


def test_the_page_from_nothing_makes_and_deletes_the_same_things() -> None:
    commands = in_blocks(ROOT / "docs/how-to/gke-from-nothing.md")
    assert len(commands) > 20
    made = {"projects create", "container clusters create", "container node-pools create",
            "artifacts repositories create", "storage buckets create"}  # fmt: skip
    gone = {"projects delete", "container clusters delete", "container node-pools delete",
            "artifacts repositories delete", "storage rm"}  # fmt: skip
    for name in made | gone:
        assert [c for c in commands if c.startswith(f"gcloud {name} ")], name


@pytest.mark.parametrize(
    ("command", "wrong"),
    [
        ("gcloud container clusters create x --location y", None),
        ("gcloud container clusters create x --regoin y", "--regoin"),
        ("gcloud container cluster create x", "no command"),
        ("gcloud storage rm --recursive gs://x --quiet", None),
    ],
)
def test_a_wrong_command_would_not_pass(command: str, wrong: str | None) -> None:
    assert (unknown(command) is None) == (wrong is None)
    assert wrong is None or wrong in (unknown(command) or "")
