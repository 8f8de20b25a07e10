"""The lock of what hosts install: made by uv from an index, kept for a job, refused in a sentence.

uv is real, the index a local one; where an error of uv matters, a stand-in for uv ends so.
"""

import hashlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
from fake_index import FakeIndex

from llm_jax.config import UserError
from llm_jax.launch import lock
from llm_jax.launch.lock import Lock, differences, keep_lock, make_lock

PROJECT = """[build-system]
requires = ["builder"]
[project]
name = "mine"
version = "1"
dependencies = [{needs}]
optional-dependencies = {{ tpu = ["chip>=1"] }}
"""


@pytest.fixture
def code(tmp_path):
    def write(*needs):
        (tmp_path / "code").mkdir(exist_ok=True)
        text = PROJECT.format(needs=", ".join(f'"{need}"' for need in needs))
        (tmp_path / "code/pyproject.toml").write_text(text)
        return tmp_path / "code"

    return write


@pytest.fixture
def index(tmp_path, monkeypatch):
    """An index from which the real uv resolves."""
    try:
        uv = lock.find_uv()
    except UserError as error:
        pytest.skip(str(error))
    made = FakeIndex()
    for name in ("setuptools", "builder", "chip", "jax"):
        made.publish(name, "1.0", ("below",) if name == "jax" else ())
    made.publish("below", "2.0")
    version = subprocess.run([uv, "--version"], capture_output=True, text=True).stdout.split()[1]
    made.publish("uv", version)
    monkeypatch.setenv("UV_DEFAULT_INDEX", made.url)
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("UV_NO_CACHE", "1")  # what is published is seen at once
    monkeypatch.setattr(lock, "_is_reachable", lambda address: True)
    yield made
    made.server.shutdown()


def test_every_package_has_its_version_and_hash(index, code):
    made = make_lock(code("jax"), ["tpu"])
    assert {"setuptools", "builder", "chip", "jax", "below", "uv"} == made.pins.keys()
    for file, data in index.wheels.items():
        name, version = file.split("-")[:2]
        digest = hashlib.sha256(data).hexdigest()
        assert f"{name}=={version} \\\n    --hash=sha256:{digest}\n" in made.requirements
    assert made.uv.splitlines()[0] == f"--index-url {index.url}"
    assert re.search(r"^uv==[\d.]+ \\\n    --hash=sha256:\w{64}\n\Z", made.uv, re.MULTILINE)


def test_what_is_installed_on_day_5_is_that_of_day_1(index, code, tmp_path):
    heard = []
    day1 = keep_lock(code("jax"), ["tpu"], None, heard.append)
    index.publish("jax", "1.1", ("below",))
    index.publish("below", "2.1")
    day5 = keep_lock(code("jax"), ["tpu"], day1, heard.append)
    assert day5 == day1
    (told,) = heard
    assert "below 2.1 for 2.0, jax 1.1 for 1.0; remove launch/requirements.txt" in told

    (tmp_path / "lock.txt").write_text(day5.requirements)
    uv = lock.find_uv()
    subprocess.run([uv, "venv", "-q", "-p", sys.executable, tmp_path / "venv"], check=True)
    words = ["--python", tmp_path / "venv", "--require-hashes", "-r", tmp_path / "lock.txt"]
    install = [uv, "pip", "install", "-q", *words]
    subprocess.run(install, check=True)
    names = [path.name for path in (tmp_path / "venv").rglob("*.dist-info")]
    assert "jax-1.0.dist-info" in names and "below-2.0.dist-info" in names

    subprocess.run([uv, "pip", "uninstall", "-q", "-p", tmp_path / "venv", "jax"], check=True)
    index.publish("jax", "1.0")  # under the same name, something else
    done = subprocess.run(install, capture_output=True, text=True)
    assert done.returncode != 0 and "Hash mismatch for `jax==1.0`" in done.stderr


def test_code_that_needs_something_else_changes_the_lock_and_says_so(index, code):
    heard = []
    held = make_lock(code("jax"), ["tpu"])
    index.publish("jax", "1.1", ("below",))
    index.publish("extra", "3.0")
    kept = keep_lock(code("jax", "extra"), ["tpu"], held, heard.append)
    assert kept.pins == held.pins | {"extra": "3.0"}
    assert "no longer fits its code: extra 3.0 for nothing" in heard[0] and "jax 1.1" in heard[1]


def test_a_package_that_is_not_there_is_one_sentence(index, code):
    with pytest.raises(UserError, match=r"cannot be locked \(.*no-such-package") as error:
        make_lock(code("no-such-package"), ["tpu"])
    assert "\n" not in str(error.value) and len(str(error.value)) < 600
    with pytest.raises(UserError, match="extra not found: gpu"):
        make_lock(code("jax"), ["gpu"])


def stand_in(tmp_path, monkeypatch, script):
    uv = tmp_path / "uv"
    uv.write_text(f'#!/bin/bash\n[ "$1" = --version ] && echo uv 1.2 && exit\n{script}\n')
    uv.chmod(0o755)
    monkeypatch.setattr(lock, "find_uv", lambda: str(uv))


LOGIN = "me:" + "hunter2x"
WRITES = 'while [ "$1" != --output-file ]; do shift; done; printf "%b" "{}" > "$2"'


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        ("echo 'error: no network\n  cause: refused' >&2; exit 2", "no network: refused"),
        ("exit 1", "uv said nothing"),
        ("exec sleep 20", "did not end within 1 s"),
        (WRITES.format(f"--index-url https://{LOGIN}@host/simple\\na==1\\n"), "a password"),
        (WRITES.format("--index-url http://localhost:3141/simple\\na==1\\n"), "cannot reach"),
        (WRITES.format("--find-links /opt/wheels\\na==1\\n"), "/opt/wheels, which they cannot"),
        (WRITES.format("a @ file:///home/me/a\\n"), "file:///home/me/a, which they cannot"),
        (WRITES.format(f"a @ git+https://{LOGIN}@host/a@0\\n"), "a password"),
        (WRITES.format("-e ./a\\n"), "./a, which they cannot"),
    ],
)
def test_a_lock_that_hosts_could_not_use_is_refused(script, sentence, code, tmp_path, monkeypatch):
    stand_in(tmp_path, monkeypatch, script)
    monkeypatch.setattr(lock, "SECONDS", 1)
    with pytest.raises(UserError, match=re.escape(sentence)) as error:
        make_lock(code("jax"), ["tpu"])
    assert "--image" in str(error.value) and "hunter2x" not in str(error.value)


def test_an_index_of_ones_own_is_named(code, tmp_path, monkeypatch):
    stand_in(tmp_path, monkeypatch, WRITES.format("--index-url https://mine/simple\\n\\na==1\\n"))
    assert make_lock(code(), []).requirements == "--index-url https://mine/simple\na==1\n"
    stand_in(tmp_path, monkeypatch, WRITES.format(f"--index-url {lock.PYPI}\\n\\na==1\\n"))
    assert make_lock(code(), []).requirements == "a==1\n"


def test_without_uv_one_sentence(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match=r"--code needs uv.*'llm-jax\[launch-gcp\]'.*--image"):
        lock.find_uv()


def test_a_broken_project_is_one_sentence(code, tmp_path, monkeypatch):
    stand_in(tmp_path, monkeypatch, "exit 1")
    (code() / "pyproject.toml").write_text("[")
    with pytest.raises(UserError, match=r"pyproject.toml, which cannot be read"):
        make_lock(Path(tmp_path / "code"), [])


def test_differences_in_words():
    before = Lock("a==1\nb==1\nc==1\nd==1\n")
    assert differences(before, before) == ""
    after = Lock("a==2\nb==2\nc==2\ne==1\n")
    assert differences(before, after) == "a 2 for 1, b 2 for 1, c 2 for 1 and 2 others"
    assert differences(before, Lock("a==1\nb==1\nc==1\n")) == "d left out for 1"
