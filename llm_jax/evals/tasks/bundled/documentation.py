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

from llm_jax.evals.tasks.bundled.questions import Question, dealt, question, shuffled, splits

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
    draw = random.Random(name)
    space = "" if form.endswith("：") else " "
    made: list[Question] = []
    for function, said, wrong in with_others(draw, [*described()]):
        context = form.format(said=said)
        made.append(question(draw, context, space + function, [space + w for w in wrong]))
    made = dealt(name, shuffled(name, made))
    spare = min(SHOTS, len(made) // 5)
    return splits(made[spare : COUNT + spare], made[:spare])


def with_others(
    draw: random.Random, found: list[tuple[str, str]]
) -> Iterator[tuple[str, str, list[str]]]:
    """Each function with its description and three others: of its module, where it has them, so
    that who likes a module is right by chance. They are dealt in turn, not drawn: each is a wrong
    answer as often as the others, so that how often a name is met tells nothing."""
    found = draw.sample(found, len(found))
    modules: dict[str, list[tuple[str, str]]] = {}
    for one in found:
        modules.setdefault(one[0].rpartition(".")[0], []).append(one)
    ring = [one for module in modules.values() for one in module]
    for place, (function, said) in enumerate(ring):
        near = modules[function.rpartition(".")[0]]
        own = near.index((function, said))
        far = place + len(ring) // 2
        turn = [near[(own + step) % len(near)] for step in range(1, len(near))][:3]
        turn += [ring[(far + step) % len(ring)] for step in range(len(ring))]
        others = [other for other, text in turn if text != said]  # some share a description
        yield function, said, [*dict.fromkeys(others)][:3]
