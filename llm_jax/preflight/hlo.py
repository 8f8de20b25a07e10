"""Reads a compiled program's text: how often each instruction runs, and what it exchanges.

The text is XLA's scheduled HLO (openxla.org/xla/operation_semantics). JAX's scans are while loops
that count from 0 by 1 up to a constant in the loop's condition.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
DTYPE_BITS = {
    "pred": 8, "s4": 4, "u4": 4, "s8": 8, "u8": 8, "s16": 16, "u16": 16, "bf16": 16, "f16": 16,
    "s32": 32, "u32": 32, "f32": 32, "s64": 64, "u64": 64, "f64": 64,
    "f8e4m3fn": 8, "f8e5m2": 8, "f8e4m3": 8,
}  # fmt: skip

_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^ +(?:ROOT )?%?([\w.\-]+) = (.*)$")
_OPCODE = re.compile(r"(?<=[\s)}\]])([a-z][\w\-]*)\(")
_CALLED = re.compile(r"(?:calls|body|to_apply|called_computations?)=\{?%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_MEGASCALE = re.compile(r'_xla_megascale_transfer_type="(\w+)"')
_ARRAY = re.compile(r"\b(pred|bf16|[suf]\d+\w*)\[([\d,]*)\]")


@dataclass(frozen=True)
class Instruction:
    name: str
    opcode: str
    type: str
    """Type of the result; that of a tuple is in parentheses."""
    rest: str
    """Operands and attributes."""

    def attribute(self, name: str) -> str:
        found = re.search(rf"\b{name}=%?([\w.\-]+)", self.rest)
        return found.group(1) if found else ""


@dataclass(frozen=True)
class Collective:
    """One exchange, and how often a step runs it."""

    kind: str
    bytes: int
    """Size of the whole array that a device takes part in: after a gather, before a reduction."""
    times: int
    groups: np.ndarray
    """Device numbers, (groups, members): the members of a group exchange with each other. For a
    permutation, (pairs, 2)."""
    name: str
    """Where it comes from in the traced program, such as `jit(step)/while/body/dot_general`."""
    between_slices: bool = False
    """Whether it uses the data-centre network; then `groups` is empty."""


def array_bytes(type_text: str) -> list[int]:
    """Bytes of each array in the text of a type."""
    return [
        math.prod(map(int, dims.split(","))) * DTYPE_BITS[dtype] // 8 if dims else
        DTYPE_BITS[dtype] // 8
        for dtype, dims in _ARRAY.findall(type_text)
    ]  # fmt: skip


class Program:
    """Computations of a compiled module, and how often one run executes each.

    Args:
      text: the module.
      unbounded: how often a loop runs whose condition has no constant; None: there is none.
    """

    def __init__(self, text: str, unbounded: int | None = None) -> None:
        self.unbounded = unbounded
        self.computations: dict[str, list[Instruction]] = {}
        self.entry = ""
        current: list[Instruction] = []
        for line in text.splitlines():
            if header := _HEADER.match(line):
                current = self.computations.setdefault(header.group(2), [])
                if header.group(1):
                    self.entry = header.group(2)
            elif found := _INSTRUCTION.match(line):
                current.append(_instruction(found.group(1), found.group(2)))

    @cached_property
    def times(self) -> dict[str, int]:
        """Executions of each computation in one run; branches of a conditional count as taken."""
        times: dict[str, int] = defaultdict(int)

        def visit(name: str, count: int) -> None:
            times[name] += count
            for one in self.computations[name]:
                for called, factor in self._calls(one):
                    visit(called, count * factor)

        visit(self.entry, 1)
        return times

    def _calls(self, one: Instruction) -> Iterator[tuple[str, int]]:
        if one.opcode == "while":
            yield one.attribute("body"), self.trips(one)
        elif one.opcode == "conditional":
            names = _BRANCHES.search(one.rest)
            listed = re.findall(r"[\w.\-]+", names.group(1)) if names else []
            for name in listed or [
                one.attribute("true_computation"),
                one.attribute("false_computation"),
            ]:
                yield name, 1
        elif one.opcode in ("fusion", "call", "async-start"):
            for name in _CALLED.findall(one.rest):
                yield name, 1

    def trips(self, loop: Instruction) -> int:
        """How often the body of a while loop runs.

        Raises:
          ValueError: the condition does not compare with one constant.
        """
        known = re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.rest)
        if known:
            return int(known.group(1))
        condition = loop.attribute("condition")
        limits = {
            int(found.group(1))
            for one in self.computations[condition]
            if one.opcode == "constant" and (found := re.match(r"constant\((\d+)\)", one.rest))
        }
        if not limits and self.unbounded is not None:
            return self.unbounded
        if len(limits) != 1:
            raise ValueError(f"the loop {loop.name} has the limits {sorted(limits)}")
        return limits.pop()

    def collectives(self) -> list[Collective]:
        """Every exchange between devices, each counted once per execution.

        In TPU programs, a collective that overlaps with compute is a chain of fusions (start,
        compute, done). Each of them holds a copy of it, so a chain counts once. A fusion named
        all-reduce-scatter is a reduce-scatter, written as an all-reduce and a slice. Exchanges
        between slices begin with a send to the host's Megascale runtime.
        """
        found, chains = [], set()
        for name, count in self.times.items():
            for one in self.computations[name]:
                if one.opcode == "send" and (transfer := _MEGASCALE.search(one.rest)):
                    found.append(_between_slices(one, transfer.group(1), count))
                kind = one.opcode.removesuffix("-start")
                if kind not in KINDS:
                    continue
                chain = re.search(r'chain_id="(\d+)"', one.rest)
                if chain:
                    if chain.group(1) in chains:
                        continue
                    chains.add(chain.group(1))
                sizes = array_bytes(one.type)
                if one.opcode in ("all-gather-start", "collective-permute-start"):
                    sizes = [max(sizes)]  # the type also lists the operand and two counters
                size = sum(sizes)
                groups = _groups(one.rest, kind)
                if kind == "reduce-scatter":
                    size *= groups.shape[1]
                if name.startswith("all-reduce-scatter"):
                    kind = "reduce-scatter"
                where = re.search(r'op_name="([^"]*)"', one.rest)
                found.append(
                    Collective(kind, size, count, groups, where.group(1) if where else one.name)
                )
        return found

    def estimated_cycles(self) -> int:
        """The compiler's own estimate of a run's clock cycles, all iterations of loops included.

        It has no estimate for Pallas kernels and for collectives.
        """
        total = 0
        for name, count in self.times.items():
            for one in self.computations[name]:
                if found := re.search(r'"estimated_cycles":"(\d+)"', one.rest):
                    total += count * int(found.group(1))
        return total


def _between_slices(send: Instruction, transfer: str, count: int) -> Collective:
    """The exchange that begins with `send`, whose type is (array, u32[] counter, token)."""
    where = re.search(r'_xla_host_transfer_rendezvous="([^"]*)"', send.rest)
    return Collective(
        transfer.lower().replace("_", "-"),
        array_bytes(send.type)[0],
        count,
        np.zeros((0, 0), int),
        where.group(1) if where else send.name,
        between_slices=True,
    )


def _instruction(name: str, text: str) -> Instruction:
    opcode = _OPCODE.search(" " + text)
    if not opcode:
        return Instruction(name, "", text, "")
    start = opcode.start() - 1
    return Instruction(name, opcode.group(1), text[:start], text[start:])


def _groups(attributes: str, kind: str) -> np.ndarray:
    """Which devices exchange with each other, from any of HLO's notations."""
    if kind == "collective-permute":
        pairs = re.search(r"source_target_pairs=\{(\{.*?\})\}", attributes)
        return _listed(pairs.group(1)) if pairs else np.zeros((0, 2), int)
    if found := re.search(r"replica_groups=\{(\{.*?\})\}", attributes):
        return _listed(found.group(1))
    if found := re.search(r"replica_groups=(\[[\d,]+\]<=\S+)", attributes):
        return _iota(found.group(1))
    found = re.search(
        r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\((\S+)\))? \{([^}]*)\}", attributes
    )
    if not found:
        raise ValueError(f"unknown replica groups in {attributes[:200]}")
    names = re.findall(r"'([^']+)'=(\d+)", found.group(1))
    sizes = [int(size) for _, size in names]
    devices = _ordered(found.group(2)) if found.group(2) else np.arange(math.prod(sizes))
    return _mesh_groups(devices, [name for name, _ in names], sizes, found.group(3))


def _listed(text: str) -> np.ndarray:
    return np.array([[int(i) for i in group.split(",")] for group in re.findall(r"[\d,]+", text)
                     if group != ","])  # fmt: skip


def _iota(text: str) -> np.ndarray:
    """`[2,4]<=[4,2]T(1,0)`: 0…7 as 4 × 2, transposed, as 2 groups of 4."""
    shape, order = text.split("<=")
    return _ordered(order).reshape([int(n) for n in shape[1:-1].split(",")])


def _ordered(text: str) -> np.ndarray:
    """`[4,2]T(1,0)`: the numbers 0…7 as 4 × 2, transposed and flattened."""
    found = re.match(r"\[([\d,]+)\](?:T\(([\d,]+)\))?", text)
    if not found:
        raise ValueError(f"unknown device order {text}")
    dims = [int(n) for n in found.group(1).split(",")]
    ids = np.arange(math.prod(dims)).reshape(dims)
    if found.group(2):
        ids = ids.transpose([int(n) for n in found.group(2).split(",")])
    return ids.reshape(-1)


def _mesh_groups(devices: np.ndarray, names: list[str], sizes: list[int], axes: str) -> np.ndarray:
    """Groups along `axes` of XLA's own mesh; `'a':(2)4` is the part of 4 after a factor of 2."""
    index: dict[str, int] = {}
    shape: list[int] = []
    parts = {name: (pre, size) for name, pre, size in re.findall(r"'([^']+)'(?::\((\d+)\)(\d+))?",
                                                                 axes)}  # fmt: skip
    for name, size in zip(names, sizes, strict=True):
        pre, inner = (int(n) if n else 0 for n in parts.get(name, ("", "")))
        pieces = [pre, inner, size // (pre * inner)] if pre else [size]
        index[name] = len(shape) + (1 if pre else 0)
        shape += pieces
    grouped = [index[name] for name in parts]
    other = [i for i in range(len(shape)) if i not in grouped]
    members = math.prod(shape[i] for i in grouped)
    return devices.reshape(shape).transpose(other + grouped).reshape(-1, members)
