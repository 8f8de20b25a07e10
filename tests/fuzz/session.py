"""Tries: each in a folder of its own, which holds what the call names, and is looked at after."""

from __future__ import annotations

import collections
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import hypothesis
import oracle
import world
from calls import Call, calls
from environments import Environment
from hostile import make_special
from hypothesis import HealthCheck, Phase
from zygote import Outcome, Zygote


@dataclass(frozen=True)
class Finding:
    """A call that did not end as it should."""

    call: Call
    fault: str
    outcome: Outcome


@dataclass
class Tally:
    """What has been tried and found."""

    tries: collections.Counter[str] = field(default_factory=collections.Counter)
    codes: collections.Counter[int] = field(default_factory=collections.Counter)
    seconds: float = 0.0
    findings: list[Finding] = field(default_factory=list)

    def __iadd__(self, other: Tally) -> Tally:
        self.tries += other.tries
        self.codes += other.codes
        self.seconds += other.seconds
        self.findings += other.findings
        return self

    def kinds(self) -> dict[str, list[Finding]]:
        """Findings by fault, the shortest call of each first."""
        found: dict[str, list[Finding]] = collections.defaultdict(list)
        for finding in sorted(self.findings, key=lambda one: len(repr(one.call))):
            found[f"{finding.call.verb}: {finding.fault[:150]}"].append(finding)
        return found

    def told(self) -> str:
        """Each kind of fault with its shortest call and what that said."""
        lines = []
        for kind, found in self.kinds().items():
            said = found[0].outcome.err.decode(errors="replace")[-1500:].replace("\n", "\n    ")
            lines.append(f"  {len(found)} x {kind}\n    {found[0].call}\n    {said}\n")
        return "".join(lines)


class Session:
    """A world, and a process that runs calls in copies of it."""

    def __init__(self, scratch: Path, zygote: Zygote) -> None:
        self._scratch, self._zygote = scratch, zygote
        self._world = scratch / "world"
        self._files = world.make(self._world, zygote)
        self._child = scratch / "child"
        self._child.write_text("#!/bin/sh\necho there are no other programs here. >&2\nexit 2\n")
        self._child.chmod(0o755)

    def fuzz(self, verb: str, tries: int, seed: int, tally: Tally) -> None:
        """Makes `tries` calls of `verb`, drawn from `seed`."""

        @hypothesis.seed(f"{seed} {verb}")
        @hypothesis.settings(
            max_examples=tries,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @hypothesis.given(calls(verb, self._files))
        def one(call: Call) -> None:
            self.attempt(call, tally)

        one()

    def attempt(self, call: Call, tally: Tally) -> None:
        """Runs the call in a fresh folder, and notes what is wrong with how it ended."""
        self._judged(call, tally, lambda folder, variables: self._zygote.run(
            call.argv, folder, variables, call.stdin
        ))  # fmt: skip

    def start(self, call: Call, around: Environment, tally: Tally) -> None:
        """The same in a process of its own, started in `around`."""
        self._judged(
            call,
            tally,
            lambda folder, variables: self._zygote.run(call.argv, folder, variables, around=around),
            around,
        )

    def _judged(
        self,
        call: Call,
        tally: Tally,
        run: Callable[[Path, dict[str, str]], Outcome],
        around: Environment | None = None,
    ) -> None:
        root = self._scratch / "try"
        inner = around.folder if around and around.folder != "gone" else ""
        try:
            self._lay_out(root, root / "here" / inner, call)
            before = oracle.snapshot(root)
            ended = run(root / "here", self._variables(root))
            changed = oracle.changes(before, oracle.snapshot(root))
        finally:
            shutil.rmtree(root)
        paths = [os.path.relpath(path, Path("here", inner)) for path in changed
                 if path not in STREAMS]  # fmt: skip
        tally.tries[call.verb] += 1
        tally.codes[ended.code] += 1
        tally.seconds += ended.seconds
        is_heard = around is None or around.is_heard
        for fault in oracle.faults(call, ended, paths, is_heard=is_heard):
            tally.findings.append(Finding(call, fault, ended))

    def _variables(self, root: Path) -> dict[str, str]:
        return {
            "HOME": str(root / "home"),
            "TMPDIR": str(root / "tmp"),
            "MPLCONFIGDIR": str(self._scratch / "matplotlib"),
            "FUZZ_CHILD": str(self._child),
        }

    def _lay_out(self, root: Path, here: Path, call: Call) -> None:
        for folder in (here, root / "home", root / "tmp"):
            folder.mkdir(parents=True)
        for entry in sorted(call.entries & set(self._files)):
            source, target = self._world / entry, here / entry
            if source.is_dir():
                shutil.copytree(source, target, symlinks=True)
            else:
                shutil.copy(source, target)
        make_special(here / "special")
        for damage in call.damages:
            damage.do(here)


STREAMS = ("here.in", "here.out", "here.err")


MEMORY = Path("/dev/shm")
"""A file system in memory, if there is one: each try makes, reads and removes some 100 files."""


@contextmanager
def session() -> Iterator[Session]:
    """Makes a world in a temporary folder, which goes at the end."""
    fast = str(MEMORY) if os.access(MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=fast, prefix="fuzz") as folder:
        scratch = Path(folder)
        with Zygote(_variables(scratch)) as zygote:
            yield Session(scratch, zygote)


def _variables(scratch: Path) -> dict[str, str]:
    return {
        "JAX_PLATFORMS": "cpu",
        "OPENBLAS_NUM_THREADS": "1",
        "XLA_FLAGS": "--xla_backend_optimization_level=0",
        "JAX_COMPILATION_CACHE_DIR": str(scratch / "jax"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "LLM_JAX_TRACEBACK": "1",
        # No cloud is asked for.
        "NO_GCE_CHECK": "true",
        "GOOGLE_CLOUD_PROJECT": "none",
        "KUBECONFIG": str(scratch / "none"),
        # Read when the library is imported.
        "HF_HOME": str(scratch / "huggingface"),
        "MPLCONFIGDIR": str(scratch / "matplotlib"),
    }
