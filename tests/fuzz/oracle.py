"""Whether a call ended as the command line promises."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from calls import OUTPUTS, Call
from hostile import LINKS
from zygote import Outcome

from llm_jax.runs.kept import EVALUATIONS, SAMPLES, TASK_SAMPLES
from llm_jax.runs.plan_file import plan_file
from llm_jax.runs.scores import FOLDER as SCORES

CODES = (0, 1, 2, 75, 78, 130)
SECONDS = 20.0
KILOBYTES = 2_000_000
"""Resident, with 0.5 GB that the zygote has before."""
LINE = 2000
"""Characters that one sentence may have."""
Snapshot = dict[str, tuple[Any, ...]]
KEEPS_FILES: dict[str, tuple[str, ...]] = {
    "report": ("run",),
    "train": ("run", "made"),
    "launch stop": ("job/launch/stop.json",),
    "fit": ("law.json", "law.png"),
    "tokenizer train": ("tokenizer.model",),
    "data mix": ("regmix",),
}
"""What a verb writes to without a flag that names it."""
CACHES = ("../home/.cache", "../home/.config")
SMALL = 1 << 22


def snapshot(root: Path) -> Snapshot:
    """Kind, size and content of everything below `root`, links as links."""
    found: Snapshot = {}
    for folder, names, files in os.walk(root):
        for name in names + files:
            path = Path(folder, name)
            found[str(path.relative_to(root))] = _state(path)
    return found


def _state(path: Path) -> tuple[Any, ...]:
    held = path.lstat()
    kind = stat.S_IFMT(held.st_mode)
    if stat.S_ISLNK(held.st_mode):
        return (kind, str(path.readlink()))
    if not stat.S_ISREG(held.st_mode):
        return (kind,)
    if held.st_size > SMALL:
        return (kind, held.st_size, held.st_mtime_ns)
    return (kind, held.st_size, hashlib.sha256(path.read_bytes()).hexdigest())


def changes(before: Snapshot, after: Snapshot) -> list[str]:
    return sorted(
        name for name in before.keys() | after.keys() if before.get(name) != after.get(name)
    )


def faults(
    call: Call, ended: Outcome, changed: Iterable[str], *, is_heard: bool = True
) -> list[str]:
    """What is wrong with how `call` ended, each fault in one line.

    Args:
      changed: paths whose content is another than before, relative to the call's folder.
      is_heard: whether standard error and output were read.
    """
    out, err = ended.out.decode(errors="replace"), ended.err.decode(errors="replace")
    found = list(_of_the_process(ended, err))
    if not found and is_heard:
        found += _of_the_words(call, ended.code, out, err)
    return found + list(_of_the_files(call, ended.code, changed))


def _of_the_process(ended: Outcome, err: str) -> Iterable[str]:
    if ended.timed_out or ended.seconds > SECONDS:
        yield f"slow: {ended.seconds:.0f} s"
    elif "Traceback" in err:
        yield f"traceback: {_origin(err)}"
    elif "internal error" in err:
        yield f"internal error: {err[-200:]!r}"
    elif ended.code not in CODES:
        yield f"exit code {ended.code}: {err[-200:]!r}"
    if ended.kilobytes > KILOBYTES:
        yield f"memory: {ended.kilobytes / 1e6:.1f} GB"


def _origin(err: str) -> str:
    """The error, and the last place in llm_jax that it passed."""
    places = re.findall(r'File "[^"]*/(llm_jax/[^"]+)", line (\d+)', err)
    last = [line for line in err.strip().splitlines() if line and not line.startswith(" ")][-1]
    return f"{':'.join(places[-1]) if places else '?'} {last[:200]}"


def _of_the_words(call: Call, code: int, out: str, err: str) -> Iterable[str]:
    if code == 0:
        yield from _of_the_result(call, out)
        return
    if code in (1, 2, 75, 78) and not (call.verb == "preflight" and code == 1):
        last = err.splitlines()[-1] if err.strip() else ""
        if not re.fullmatch(r"error: .{10,}[.?!]", last):
            yield f"no sentence: {err[-300:]!r}"
        elif len(last) > LINE:
            yield f"long sentence: {len(last)} characters, {last[:100]!r}"
        if err.count("\n") > 12:
            yield f"many lines: {err.count(chr(10))}, {err[:200]!r}"
        if _asks_json(call) and out:
            yield f"result beside an error: {out[:100]!r}"


def _asks_json(call: Call) -> bool:
    """Whether `--json` is a flag: what follows `--` is text."""
    words = list(call.words)
    return "--json" in (words[: words.index("--")] if "--" in words else words)


def _of_the_result(call: Call, out: str) -> Iterable[str]:
    if not _asks_json(call) or {"-h", "--help"} & set(call.words):
        return

    def refuse(name: str) -> None:
        raise ValueError(f"holds {name}")

    try:
        if not isinstance(json.loads(out, parse_constant=refuse), dict) or out.count("\n") != 1:
            yield f"not one JSON object: {out[:200]!r}"
    except ValueError as error:
        yield f"bad JSON: {error}: {out[:200]!r}"


def _of_the_files(call: Call, code: int, changed: Iterable[str]) -> Iterable[str]:
    """On success only what the verb writes may change, and after an error nothing."""
    allowed = [_followed(path) for path in _written(call)]
    harmed = [
        path
        for path in changed
        if not path.startswith(CACHES)
        and not (code not in (2, 78) and any(_below(path, one) for one in allowed))
    ]
    if code in (2, 78) and call.verb in ("train", "launch stop"):
        harmed = [path for path in harmed if not any(_below(path, one) for one in allowed)]
    if harmed:
        yield f"files changed with exit code {code}: {harmed[:4]}"
    strays = {damage.file for damage in call.damages}
    left = [
        path
        for path in set(changed) - strays
        if re.search(r"\.tmp$|orbax-checkpoint-tmp|/tmp", path)
    ]
    if left and not harmed:
        yield f"files left: {left[:4]}"


def _followed(path: str) -> str:
    """`path` without the folder that is a link to the folder it is in."""
    return re.sub(r"special/(self/)+", "special/", path)


def _below(path: str, place: str) -> bool:
    path, place = os.path.normpath(path), os.path.normpath(place)
    if place == ".":
        return not path.startswith("..")
    return path == place or path.startswith(place + "/") or place.startswith(path + "/")


def _written(call: Call) -> list[str]:
    found = list(KEEPS_FILES.get(call.verb, ()))
    words = list(call.words)
    for name in OUTPUTS:
        for place, word in enumerate(words):
            if word == f"--{name}" and place + 1 < len(words):
                found.append(words[place + 1])
            elif word.startswith(f"--{name}="):
                found.append(word.partition("=")[2])
    if call.verb in ("export", "import", "report"):
        found += words  # a folder that no flag names
    named = [Path(path) for path in found if Path(path).name]
    pictures = [str(path.with_suffix(".png")) for path in named]
    if call.verb == "data build" and any(word.startswith("--recipe") for word in words):
        found += [f"{path}-curated" for path in named]
    if call.verb == "plan" and any(word.startswith("--extend") for word in words):
        named += [path.with_name(f"{path.stem}-extend.json") for path in named]  # the second stage
        found += map(str, named)
    if "--keep" in words:
        kept = (EVALUATIONS, SAMPLES, SCORES, TASK_SAMPLES)
        found += [f"{word}/{name}" for word in words for name in kept]
    if call.verb in ("plan", "preflight"):  # the prediction, beside the run
        found += [str(plan_file(path)) for path in named]
    targets = [f"special/{LINKS[path]}" for path in found if path in LINKS]
    return [path for path in found + pictures + targets if path]
