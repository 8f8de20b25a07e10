"""What is known of a job's attempts, in few requests however many hosts and attempts there are.

When an attempt has ended on all its hosts, it is closed: one small object says what follows from it
and from all before it, another holds the records of all hosts. Whoever starts reads the last small
object alone, and the hosts' own records only of what came after it. It is created once, by the
first of several writers, so that all hosts decide from the same facts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from llm_jax.config import UserError, from_dict
from llm_jax.launch.folder import Folder
from llm_jax.launch.records import (
    KINDS,
    Attempt,
    ExitRecord,
    attempt_files,
    attempt_name,
    attempts,
    own_files,
    parsed_object,
    pass_over,
    read_object,
)

PLACE = "launch/closed"
CLOSED_FILE = re.compile(PLACE + r"/(\d{4,9}\.\d{4,9})(\.hosts)?\.json")
SHAPE = {"attempts": [{"attempt": str, "hosts": int, "recorded": int, "ends": [{}]}]}
SAME = ("kind", "sentence", "code", "phase")
"""Fields that many hosts of an attempt share; the others stand in a row for each host."""
OWN = ("process", "hostname", "step", "time")


def closed_attempts(folder: Folder) -> list[str]:
    """Names of the attempts that are closed, oldest first."""
    files = own_files(folder, PLACE, CLOSED_FILE, "a closed attempt")
    return sorted(parts[1] for parts in files if parts[2] is None)


def history(
    folder: Folder, hosts: int, first: int, known: Mapping[str, bytes | None] | None = None
) -> list[Attempt]:
    """The attempts from incarnation `first` on, oldest first; closed ones are condensed.

    A damaged object is reported and passed over: then the one before it counts, and the records of
    the hosts after that.

    Args:
      known: records that need not be read again, by their names.
    """
    since = attempt_name(first, 0)
    for name in reversed([a for a in closed_attempts(folder) if a >= since]):
        held = read_closed(folder, name)
        if held is not None:
            later = attempts(folder, hosts, first, name, known)
            return [attempt for attempt in held if attempt.name >= since] + later
    return attempts(folder, hosts, first, known=known)


def outcome(folder: Folder, hosts: int, first: int, attempt: str) -> list[Attempt] | None:
    """The history up to an attempt, if that is closed; None while it is not."""
    data = folder.read(f"{PLACE}/{attempt}.json")
    if data is None:
        return None
    held = _parsed(folder, attempt, data)
    if held is None:
        return history(folder, hosts, first)
    return [one for one in held if one.name >= attempt_name(first, 0)]


def read_closed(folder: Folder, attempt: str) -> list[Attempt] | None:
    """What the object of a closed attempt says: that attempt and all before it, condensed.

    None if it is not closed, or the object is damaged, which is said.
    """
    return _parsed(folder, attempt, folder.read(f"{PLACE}/{attempt}.json"))


def _parsed(folder: Folder, attempt: str, data: bytes | None) -> list[Attempt] | None:
    name = f"{PLACE}/{attempt}.json"
    raw = parsed_object(folder, name, data, SHAPE)
    if raw is None:
        return None
    try:
        held = [_condensed(one, name) for one in raw["attempts"]]
        if not held or held[-1].name != attempt:
            raise UserError(f"{name} is not of attempt {attempt}")
        return held
    except UserError as error:
        pass_over(folder.address, str(error))
        return None


def _condensed(raw: dict[str, Any], name: str) -> Attempt:
    ends = [from_dict(end, ExitRecord, name) for end in raw["ends"]]
    if not 0 < len(ends) <= raw["recorded"] <= raw["hosts"]:
        raise UserError(f"{name} has {len(ends)} of {raw['recorded']} records")
    return Attempt(raw["attempt"], tuple(ends), raw["hosts"], raw["recorded"])


def whole_history(folder: Folder, hosts: int, first: int) -> list[Attempt]:
    """As `history`, with the records of all hosts; for those who look."""
    closed = [a for a in closed_attempts(folder) if a >= attempt_name(first, 0)]
    told = {name: held for name in closed if (held := _all_hosts(folder, name)) is not None}
    files = attempt_files(folder, first)
    rest = sorted({file.attempt for file in files} - told.keys())
    if rest:
        # Only what is not in the objects is read host by host.
        of_told = {f.name: None for f in files if f.is_exit and f.attempt in told}
        told |= {a.name: a for a in attempts(folder, hosts, first, known=of_told) if a.name in rest}
    return [told[name] for name in sorted(told)]


def _all_hosts(folder: Folder, attempt: str) -> Attempt | None:
    name = f"{PLACE}/{attempt}.hosts.json"
    raw = read_object(folder, name, {"hosts": int, "ends": [{"of": [list]}]})
    if raw is None:
        return None
    try:
        records = [
            from_dict({**{n: end.get(n) for n in SAME}, **dict(zip(OWN, row, strict=True))},
                      ExitRecord, name)
            for end in raw["ends"] for row in end["of"]
        ]  # fmt: skip
    except (UserError, ValueError) as error:
        pass_over(folder.address, f"{name}: {error}")
        return None
    return Attempt(attempt, _in_order(records), raw["hosts"])


@dataclass(frozen=True)
class Open:
    """An attempt that is not closed: hosts that have ended, and those that came and have not."""

    ended: set[int]
    going: set[int]


def unclosed(folder: Folder, first: int) -> dict[str, Open]:
    """The attempts after the last closed one, oldest first."""
    last = max(closed_attempts(folder), default="")
    found: dict[str, Open] = {}
    for file in attempt_files(folder, first, last):
        seen = found.setdefault(file.attempt, Open(set(), set()))
        (seen.ended if file.is_exit else seen.going).add(file.process)
    return {name: Open(found[name].ended, found[name].going - found[name].ended)
            for name in sorted(found)}  # fmt: skip


def closable(folder: Folder, first: int, here: str) -> list[str]:
    """Attempts that can be closed, oldest first: a host has ended, and no other can any more, since
    none is left or the attempt is older than `here`, of an allocation before."""
    found = unclosed(folder, first)
    return [a for a, seen in found.items() if seen.ended and (a < here or not seen.going)]


def all_have_left(folder: Folder, hosts: int, first: int) -> bool:
    """Whether every host has ended in the last attempt."""
    names = {*closed_attempts(folder), *(found := unclosed(folder, first))}
    last = max(names, default="")
    if last in found:
        return len(found[last].ended) == hosts
    held = read_closed(folder, last) if last >= attempt_name(first, 0) else None
    return held is not None and held[-1].recorded == hosts


def close(
    folder: Folder,
    hosts: int,
    first: int,
    attempt: str,
    known: Mapping[str, bytes | None] | None = None,
    more: Iterable[ExitRecord] = (),
) -> None:
    """Closes an attempt, and with it all before it, unless that has been done.

    Args:
      known: exit records that need not be read again, by their names.
      more: records of hosts that could not leave their own; a host's own record counts.
    """
    past = [a for a in history(folder, hosts, first, known) if a.name <= attempt]
    if not past or past[-1].name != attempt or past[-1].condensed:
        return
    last = past[-1]
    own = {record.process for record in last.exits}
    added = [record for record in more if record.process not in own]
    last = Attempt(attempt, _in_order([*last.exits, *added]), hosts)
    if not last.exits:
        return
    _write_once(folder, f"{PLACE}/{attempt}.hosts.json", _grouped(last))
    told = [condense(one) for one in (*past[:-1], last) if one.ended]
    value = [
        {"attempt": a.name, "hosts": a.hosts, "recorded": a.recorded, "ends": _dicts(a.exits)}
        for a in told
    ]
    _write_once(folder, f"{PLACE}/{attempt}.json", {"attempts": value})


def _write_once(folder: Folder, name: str, value: Any) -> None:
    folder.create(name, (json.dumps(value, separators=(",", ":")) + "\n").encode())


def condense(attempt: Attempt) -> Attempt:
    """The attempt with few of its records, from which the same cause, step and end follow: of each
    kind the first by step and time, and the one that got furthest."""
    kept = [max(attempt.exits, key=lambda e: e.step)]
    for kind in KINDS:
        same = [e for e in attempt.exits if e.kind == kind]
        kept += [min(same, key=lambda e: (e.step, e.time))] if same else []
    unique = {record.process: record for record in kept}
    return Attempt(attempt.name, _in_order(unique.values()), attempt.hosts, attempt.recorded)


def _in_order(records: Iterable[ExitRecord]) -> tuple[ExitRecord, ...]:
    return tuple(sorted(records, key=lambda record: record.process))


def _dicts(records: Sequence[ExitRecord]) -> list[dict[str, Any]]:
    return [asdict(record) for record in records]


def _grouped(attempt: Attempt) -> dict[str, Any]:
    """All records, in which what many hosts share stands once."""
    groups: dict[tuple, list[list[Any]]] = {}
    for record in _dicts(attempt.exits):
        rows = groups.setdefault(tuple(record[name] for name in SAME), [])
        rows.append([record[name] for name in OWN])
    ends = [dict(zip(SAME, same, strict=True)) | {"of": rows} for same, rows in groups.items()]
    return {"attempt": attempt.name, "hosts": attempt.hosts, "ends": ends}


def next_attempt(past: Sequence[Attempt], incarnation: int) -> str:
    """The first attempt of the incarnation in which nobody has ended yet.

    Hosts that know the same history agree on the answer without talking to each other.
    """
    names = [a.name.split(".") for a in past if a.ended]
    restarts = [int(restart) for allocation, restart in names if int(allocation) == incarnation]
    return attempt_name(incarnation, max(restarts, default=-1) + 1)


def next_incarnation(folder: Folder) -> int:
    """An incarnation above every one that left an attempt behind."""
    closed = closed_attempts(folder)
    files = attempt_files(folder, after=max(closed, default=""))
    used = [int(name.split(".")[0]) for name in (*closed, *(file.attempt for file in files))]
    return max(used, default=-1) + 1
