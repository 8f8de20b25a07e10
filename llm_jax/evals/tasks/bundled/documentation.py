"""Multiple choice from the standard library's documentation: which function does what.

The questions follow the Python that runs them: another version has other functions and words. The
Japanese task asks in Japanese about the same English descriptions, since the library has no others.
"""

from __future__ import annotations

import importlib
import inspect
import random
from collections.abc import Iterator
from typing import Any

from llm_jax.evals.tasks.bundled.questions import Question, question, shuffled, splits

MODULES = [
    "bisect",
    "calendar",
    "collections",
    "copy",
    "csv",
    "datetime",
    "difflib",
    "fractions",
    "functools",
    "heapq",
    "itertools",
    "json",
    "math",
    "operator",
    "os",
    "os.path",
    "pathlib",
    "random",
    "re",
    "shutil",
    "statistics",
    "string",
    "subprocess",
    "tempfile",
    "textwrap",
    "threading",
    "time",
    "urllib.parse",
    "zlib",
]
LEAST, MOST = 20, 160
"""Characters of a description."""
COUNT, SHOTS = 200, 10


def english(**_: Any) -> Any:
    return _asked("stdlib_en", 'Which function is described as follows? "{said}" It is')


def japanese(**_: Any) -> Any:
    return _asked("stdlib_ja", "次の説明に合う関数はどれですか。「{said}」答え：")


def described() -> Iterator[tuple[str, str]]:
    """(name with its module, first sentence of its documentation), of public functions."""
    for name in MODULES:
        module = importlib.import_module(name)
        for attribute in sorted(getattr(module, "__all__", None) or vars(module)):
            value = getattr(module, attribute, None)
            if attribute.startswith("_") or not callable(value) or _is_error(value):
                continue
            if getattr(value, "__module__", None) not in (name, f"_{name}"):
                continue
            said = " ".join((inspect.getdoc(value) or "").split("\n\n")[0].split())
            # A signature or the name itself would give the answer away.
            clean = attribute.lower() not in said.lower() and "->" not in said
            if LEAST <= len(said) <= MOST and clean:
                yield f"{name}.{attribute}", said


def _is_error(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, BaseException)


def _asked(name: str, form: str) -> Any:
    found = [*described()]
    draw = random.Random(name)
    made: list[Question] = []
    for function, said in found:
        module = function.rpartition(".")[0]
        wrong_ones = [one for one, text in found if text != said]  # some share a description
        near = [one for one in wrong_ones if one.startswith(f"{module}.")]
        others = [one for one in wrong_ones if not one.startswith(f"{module}.")]
        wrong = draw.sample(near, min(2, len(near)))
        wrong += draw.sample(others, 3 - len(wrong))
        space = "" if form.endswith("：") else " "
        context = form.format(said=said)
        made.append(question(draw, context, space + function, [space + w for w in wrong]))
    made = shuffled(name, made)
    spare = min(SHOTS, len(made) // 5)
    return splits(made[spare : COUNT + spare], made[:spare])
