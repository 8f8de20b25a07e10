"""Thousands of hostile calls of every verb, the same each time; `__main__.py` makes more."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from calls import VALID, Call
from environments import ENVIRONMENTS
from session import Session, Tally, session
from tries import shares

from llm_jax.cli import VERBS

SEED = 20_261
TRIES = 3000
STARTED: tuple[Call, ...] = (
    Call("plan", ("--flops", "1e19", "--json")),
    Call("plan", ("--flops", "猫")),
    Call("tokenizer encode", ("--tokenizer", "tokenizer.model", "吾輩は猫である")),
    Call("data build", ("--input", "texts", "--tokenizer", "tokenizer.model", "--out", "made")),
    Call("launch status", ("job",)),
)
"""Calls that are made in every environment."""


@pytest.fixture(scope="module")
def tried() -> Iterator[Session]:
    with session() as made:
        yield made


def test_every_verb_is_tried():
    assert set(VALID) == set(VERBS)
    assert sum(shares(TRIES).values()) >= 3000
    assert min(shares(TRIES).values()) >= 50


@pytest.mark.slow
@pytest.mark.parametrize("verb", VERBS)
def test_hostile_calls_end_in_one_sentence(tried: Session, verb: str):
    tally = Tally()
    tried.fuzz(verb, shares(TRIES)[verb], SEED, tally)
    assert tally.tries[verb] == shares(TRIES)[verb]
    assert not tally.findings, tally.told()


@pytest.mark.slow
@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_hostile_surroundings(tried: Session, name: str):
    tally = Tally()
    for call in STARTED:
        tried.start(call, ENVIRONMENTS[name], tally)
    assert tally.tries.total() == len(STARTED)
    assert not tally.findings, tally.told()
