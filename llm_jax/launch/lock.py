"""The lock of what hosts install: every package by version and hash, made when a job is launched.

uv resolves the packages for the hosts' system and Python, not for this machine's. The lock covers
what builds packages too (`build-system.requires`), and uv itself, with which hosts get their Python
and install. A host that is replaced on day 5 so installs what day 1 installed.

  python -m llm_jax.launch.lock FOLDER EXTRA...     writes FOLDER/lock/, for a container image
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from llm_jax.config import UserError
from llm_jax.config.secrets import redact, secret_in
from llm_jax.config.wording import counted
from llm_jax.runs.files import write_text

REQUIREMENTS, UV = "requirements.txt", "uv.txt"
"""Names of the locks in the output folder's `launch/`."""
PYTHON = "3.12"
"""Of hosts; the start-up script and the container file name it too."""
PLATFORM = "x86_64-manylinux_2_31"
"""Hosts' system: libtpu has no wheel for an older C library, and VM images have 2.35."""
EXTRAS = {"tpu": ("tpu", "launch-gcp"), "gpu": ("gpu", "launch-gcp"), "cpu": ("launch-gcp",)}
"""Kind of accelerator → extras that its hosts need."""
PYPI = "https://pypi.org/simple"
SECONDS = 600.0
"""For one resolution; with an empty cache uv takes seconds."""
MOST_WORDS = 400
"""Characters of uv's complaint that a sentence repeats."""
SHOWN = 3
"""Packages that a sentence names."""
OWN = re.compile(r"^(?:--|uv==)[^\n]*\n([ \t]+[^\n]*\n)*", re.MULTILINE)
PIN_BY_VERSION = r"[A-Za-z0-9][-\w.]*=="
PIN = re.compile(r"^([A-Za-z0-9][-\w.]*)(?:==| @ )([^\s\\]+)", re.MULTILINE)


@dataclass(frozen=True)
class Lock:
    """Requirements as pip and uv read them, each with its hashes; uv is one of them."""

    requirements: str

    @property
    def uv(self) -> str:
        """uv alone, with which hosts begin, and the index that it comes from."""
        return "".join(found[0] for found in OWN.finditer(self.requirements))

    @property
    def pins(self) -> dict[str, str]:
        """Package → version, or address."""
        return dict(PIN.findall(self.requirements))


def find_uv() -> str:
    """Path of uv, installed as a package or found on PATH.

    Raises:
      UserError: there is none.
    """
    if importlib.util.find_spec("uv") is not None:
        uv = importlib.import_module("uv")
        return str(uv.find_uv_bin())
    found = shutil.which("uv")
    if found is None:
        raise UserError(
            "--code needs uv, which locks what hosts install, and it is not installed: pip install "
            "'llm-jax[launch-gcp]', or name an image that holds everything with --image."
        )
    return found


def make_lock(code: Path, extras: Sequence[str], held: Lock | None = None) -> Lock:
    """The lock of `code` with `extras`, resolved now.

    Args:
      held: a lock whose versions are kept wherever they still fit.

    Raises:
      UserError: it cannot be made, or hosts could not install from it.
    """
    uv = find_uv()
    version = held.pins["uv"] if held else _version(uv)
    more = [*_build_requirements(code / "pyproject.toml"), f"uv=={version}"]
    return Lock(_for_hosts(_resolve(uv, code.resolve(), extras, more, held)))


def keep_lock(
    code: Path, extras: Sequence[str], held: Lock | None, say: Callable[[str], None]
) -> Lock:
    """The lock for a job that may have one: `held`, and what differs from one made now is said.

    Raises:
      UserError: see `make_lock`.
    """
    now = make_lock(code, extras)
    if held is None:
        return now
    kept = make_lock(code, extras, held)
    if changed := differences(held, kept):
        say(f"the lock that the job began with no longer fits its code: {changed}")
    else:
        kept = held
    if newer := differences(kept, now):
        say(
            f"hosts install by the lock that the job began with; made now it would differ: {newer};"
            " remove launch/requirements.txt from the output folder to make it anew"
        )
    return kept


def differences(before: Lock, after: Lock) -> str:
    """In which packages two locks differ, in words; empty if in none."""
    old, new = before.pins, after.pins
    changed = [
        f"{name} {new.get(name, 'left out')} for {old.get(name, 'nothing')}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]
    more = f" and {counted(len(changed) - SHOWN, 'other')}" if changed[SHOWN:] else ""
    return ", ".join(changed[:SHOWN]) + more


def _build_requirements(project: Path) -> list[str]:
    """What builds `code`; setuptools also builds those dependencies that have no wheel."""
    try:
        parsed = tomllib.loads(project.read_text("utf-8"))
        return ["setuptools", *parsed.get("build-system", {}).get("requires", [])]
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise UserError(f"job.code holds {project}, which cannot be read: {error}.") from None


def _resolve(uv: str, code: Path, extras: Sequence[str], more: list[str], held: Lock | None) -> str:
    """What `uv pip compile` makes of the folder `code` and of the requirements `more`."""
    flags = [word for extra in extras for word in ("--extra", extra)]
    with tempfile.TemporaryDirectory() as folder:
        lock = Path(folder) / "requirements.txt"
        if held:  # uv keeps what is written there already
            lock.write_text(held.requirements, encoding="utf-8")
        argv = [
            uv, "pip", "compile", "pyproject.toml", "-", *flags, "--output-file", str(lock),
            "--generate-hashes",
            "--python-version", PYTHON, "--python-platform", PLATFORM, "--emit-index-url",
            "--emit-find-links", "--no-header", "--no-annotate", "--quiet", "--color", "never",
            "--python", sys.executable, "--no-python-downloads",
        ]  # fmt: skip
        try:
            done = subprocess.run(
                argv,
                cwd=code,
                input="\n".join(more),
                capture_output=True,
                text=True,
                timeout=SECONDS,
            )
        except subprocess.TimeoutExpired:
            raise _failed(f"uv did not end within {SECONDS:.0f} s") from None
        if done.returncode:
            raise _failed(done.stderr)
        return lock.read_text("utf-8")


def _version(uv: str) -> str:
    printed = subprocess.run([uv, "--version"], capture_output=True, text=True).stdout.split()
    if len(printed) < 2:
        raise _failed(f"{uv} --version shows no version")
    return printed[1]


def _failed(printed: str) -> UserError:
    """The sentence for what uv complained about: its error and the first cause."""
    parts = re.split(r"^\s*(?:error|cause|hint): ", printed, flags=re.MULTILINE)
    told = [" ".join(part.split()) for part in parts if part.strip()] or ["uv said nothing"]
    why = redact(": ".join(told[:2]))[:MOST_WORDS].rstrip(".")
    return UserError(
        f"What hosts would install cannot be locked ({why}): fix that, or name an image that holds "
        "everything with --image."
    )


def _for_hosts(lock: str) -> str:
    """The lock without what every host knows.

    Raises:
      UserError: an address in it has a password, or is one that hosts cannot reach.
    """
    lines = [line for line in lock.splitlines() if line not in (f"--index-url {PYPI}", "")]
    for line in lines:
        if line.startswith((" ", "#")) or re.match(PIN_BY_VERSION, line):
            continue
        address = line.removesuffix("\\").split()[-1]  # of an index, or of a package
        if secret_in(address) is not None:
            raise UserError(
                f"What hosts would install comes from an address that holds a password "
                f"({redact(address)}), and a lock is stored in the clear: name an image that holds "
                "everything with --image."
            )
        if not _is_reachable(address):
            raise UserError(
                f"What hosts would install comes from {address}, which they cannot reach: use an "
                "index at an https address, or name an image that holds everything with --image."
            )
    return "\n".join(lines) + "\n"


def _is_reachable(address: str) -> bool:
    parts = urlsplit(address.removeprefix("git+"))
    own = (parts.hostname or "").startswith("127.") or parts.hostname in ("localhost", "::1")
    return parts.scheme in ("https", "http", "ssh") and bool(parts.hostname) and not own


def main(argv: Sequence[str]) -> None:
    """Writes `lock/requirements.txt` and `lock/uv.txt` into a folder with code."""
    code, *extras = argv
    made = make_lock(Path(code), extras)
    for name, text in ((REQUIREMENTS, made.requirements), (UV, made.uv)):
        write_text(Path(code) / "lock" / name, text)
        print(f"wrote {Path(code) / 'lock' / name}")


if __name__ == "__main__":
    try:
        main(sys.argv[1:] or [".", *EXTRAS["tpu"]])
    except UserError as error:
        sys.exit(f"error: {error}")
