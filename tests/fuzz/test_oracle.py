"""The judge of the fuzzer sees what it is there for."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from calls import Call, calls, flags_of
from hostile import Damage, bomb
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import changes, faults, snapshot
from zygote import Outcome

from llm_jax.cli import VERBS

CALL = Call("plan", ("--flops", "x", "--write", "made/run.json"))
GOOD = Outcome(2, b"", b"error: --flops is 'x': write a number.\n", 0.1, 300_000)
JSON = Call("plan", ("--flops", "1e19", "--json"))


def test_a_good_ending_has_no_fault():
    assert faults(CALL, GOOD, []) == []
    assert faults(JSON, Outcome(0, b'{"a": 1.5}\n', b"", 0.1, 0), []) == []
    made = dataclasses.replace(GOOD, code=0, out=b"plan\n", err=b"")
    assert faults(CALL, made, ["made", "made/run.json"]) == []


def test_what_is_written_through_a_link_to_its_own_folder_is_allowed():
    call = Call("report", ("run", "--out=special/self/self/x", "--json"))
    ended = Outcome(0, b'{"a": 1.5}\n', b"", 0.1, 0)
    assert faults(call, ended, ["special/x", "special/x/report.html"]) == []
    assert len(faults(call, ended, ["special/y"])) == 1


@pytest.mark.parametrize(
    ("call", "change", "changed", "named"),
    [
        (CALL, {"code": 1, "err": b'Traceback\n  File "/x/llm_jax/a.py", line 3\nE: 3\n'}, [],
         "llm_jax/a.py:3 E: 3"),
        (CALL, {"code": 1, "err": b"error: internal error (KeyError: 'x'). Report it.\n"}, [],
         "internal"),
        (CALL, {"code": -11}, [], "exit code -11"),
        (CALL, {"code": 3}, [], "exit code 3"),
        (CALL, {"err": b""}, [], "no sentence"),
        (CALL, {"err": b"error: bad\n"}, [], "no sentence"),
        (CALL, {"err": b"line\n" * 20 + GOOD.err}, [], "many lines"),
        (CALL, {"err": b"error: " + b"x" * 3000 + b".\n"}, [], "long sentence"),
        (CALL, {"seconds": 99.0}, [], "slow"),
        (CALL, {"timed_out": True}, [], "slow"),
        (CALL, {"kilobytes": 3_000_000}, [], "memory"),
        (CALL, {}, ["made"], "changed"),
        (CALL, {"code": 0}, ["texts/a.txt"], "changed"),
        (Call("data build", ("--out", "made")), {"code": 0}, ["made/a.tmp"], "left"),
        (JSON, {"code": 0, "out": b'{"a": NaN}\n'}, [], "NaN"),
        (JSON, {"code": 0, "out": b"{}\n{}\n"}, [], "JSON"),
        (JSON, {"code": 0, "out": b"[]\n"}, [], "JSON"),
        (JSON, {"out": b"{}\n"}, [], "beside an error"),
    ],
)  # fmt: skip
def test_every_fault_is_seen(call, change, changed, named):
    found = faults(call, dataclasses.replace(GOOD, **change), changed)
    assert len(found) == 1
    assert named in found[0]


def test_a_changed_byte_and_a_new_link_are_seen(tmp_path: Path):
    (tmp_path / "a").write_bytes(b"1")
    before = snapshot(tmp_path)
    assert changes(before, snapshot(tmp_path)) == []
    (tmp_path / "a").write_bytes(b"2")
    (tmp_path / "b").symlink_to("a")
    assert changes(before, snapshot(tmp_path)) == ["a", "b"]


@pytest.mark.parametrize("verb", VERBS)
def test_the_flags_of_a_verb_are_its_parsers(verb):
    names = {flag.name for flag in flags_of(verb)}
    assert "--json" in names
    assert verb != "train" or {"--data.batch-size", "--optim.learning-rate"} <= names


@pytest.mark.slow
@settings(max_examples=50, derandomize=True, deadline=None, database=None)
@given(st.sampled_from(sorted(VERBS)).flatmap(lambda verb: calls(verb, {"run": ["run/run.json"]})))
def test_what_is_drawn_can_be_passed_to_a_program(call: Call):
    assert all("\0" not in word for word in call.argv)
    assert eval(repr(call), {"Call": Call, "Damage": Damage, "nan": float("nan"),
                             "inf": float("inf")}).argv == call.argv  # fmt: skip


def test_the_bomb_is_small():
    assert len(bomb()) < 100_000
