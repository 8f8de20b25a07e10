"""Speculation in an engine: the same greedy texts, the same distribution, as without."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import tiny
from tokenizers import Tokenizer as Library
from tokenizers import decoders, models

from llm_jax.config import ParallelConfig, RecurrentConfig, UserError
from llm_jax.convert.parity import our_logits
from llm_jax.data.tokenizers import Tokenizer
from llm_jax.infer.engine.engine import Engine
from llm_jax.infer.engine.request import Request
from llm_jax.infer.engine.settings import EngineSettings
from llm_jax.infer.sampling import GREEDY, Sampling
from llm_jax.language_model import LanguageModel
from llm_jax.parallel.mesh import make_mesh

LETTERS = "abcd"
SETTINGS = EngineSettings(slots=4, prefill_chunk=16)
CONFIG = tiny.model_config(max_seq_len=128, sliding_window=9, window_pattern="LG")
"""A layer whose cache is a ring, and one that sees everything."""
RECURRENT = RecurrentConfig(vocab_size=64, num_layers=1, d_model=16, max_seq_len=128)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """Five tokens: an end, and four letters."""
    folder = tmp_path_factory.mktemp("letters")
    vocabulary = {"<end>": 0} | {letter: 1 + i for i, letter in enumerate(LETTERS)}
    library = Library(models.BPE(vocab=vocabulary, merges=[]))
    library.decoder = decoders.ByteLevel()
    library.add_special_tokens(["<end>"])
    library.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<end>"}))
    return Tokenizer.load(folder)


def model_of(tokenizer: Tokenizer, seed: int = 0, config: Any = CONFIG) -> LanguageModel:
    run = tiny.run_config(model=config)
    return LanguageModel(run, tiny.parameters(config, seed=seed, size=0.15), tokenizer)


def nearby(model: LanguageModel) -> LanguageModel:
    """A draft that often agrees."""
    rng = np.random.default_rng(1)
    params = model.params
    noisy = {
        name: {key: leaf + 0.02 * rng.standard_normal(leaf.shape).astype(np.float32)
               for key, leaf in tree.items()}
        for name, tree in params.items() if name == "embed"
    }  # fmt: skip
    return dataclasses.replace(model, params=params | noisy)


def requests_of(sampling: Sampling, count: int = 9, **options: Any) -> list[Request]:
    rng = np.random.default_rng(2)
    return [
        Request(
            prompt=tuple(rng.integers(1, 5, 1 + 7 * i % 40).tolist()),
            max_tokens=12 + 5 * i, sampling=sampling, seed=i, **options,
        )
        for i in range(count)
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lookup", "draft", "itself"])
def test_greedy_texts_are_those_of_plain_decoding(tokenizer, kind):
    model = model_of(tokenizer)
    requests = requests_of(GREEDY, stop_ids=(0,), log_probs=2)
    plain = Engine(model, SETTINGS).run(requests)
    draft = {"lookup": None, "draft": nearby(model), "itself": model}[kind]
    engine = Engine(model, dataclasses.replace(SETTINGS, speculate=3), draft=draft)
    made = engine.run(requests)
    for mine, theirs in zip(made, plain, strict=True):
        assert (mine.ids, mine.finish_reason) == (theirs.ids, theirs.finish_reason)
        for one, other in zip(mine.tokens, theirs.tokens, strict=True):
            assert one.log_prob == pytest.approx(other.log_prob, abs=1e-4)
            assert [i for i, _ in one.top] == [i for i, _ in other.top]
    stats = engine.stats
    assert 0 < stats.accepted <= stats.drafted and stats.tokens >= sum(len(m.ids) for m in made)
    if kind == "itself":
        assert stats.accepted == stats.drafted
    else:
        assert stats.accepted < stats.drafted


@pytest.mark.slow
def test_looked_up_drafts_change_no_draw(tokenizer):
    model = model_of(tokenizer)
    requests = requests_of(Sampling(temperature=0.9, top_p=0.9))
    plain = [ticket.ids for ticket in Engine(model, SETTINGS).run(requests)]
    engine = Engine(model, dataclasses.replace(SETTINGS, speculate=3))
    assert [ticket.ids for ticket in engine.run(requests)] == plain
    assert 0 < engine.stats.accepted < engine.stats.drafted


@pytest.mark.slow
def test_a_draft_model_leaves_the_distribution_as_it_is(tokenizer):
    model = model_of(tokenizer)
    sampling, prompt, draws = Sampling(temperature=0.8, min_p=0.05), (1, 3, 2), 4096
    settings = dataclasses.replace(SETTINGS, slots=32, speculate=2, max_len=32)
    engine = Engine(model, settings, draft=model_of(tokenizer, seed=1))
    tickets = engine.run(
        [Request(prompt=prompt, max_tokens=3, sampling=sampling, seed=i) for i in range(draws)]
    )
    assert 0.1 < engine.stats.accepted / engine.stats.drafted < 0.95
    pairs = [(a, b) for a in range(5) for b in range(5)]
    texts = np.array([[*prompt, *pair] for pair in pairs], np.int32)
    logits = np.asarray(our_logits(model.params, model.config, texts))[:, 2:, :5]
    p = np.exp(logits / sampling.temperature)
    p /= p.sum(axis=-1, keepdims=True)
    p[p < 0.05 * p.max(axis=-1, keepdims=True)] = 0
    p /= p.sum(axis=-1, keepdims=True)
    chance = np.stack([p[i, 0, a] * p[i, 1, b] * p[i, 2] for i, (a, b) in enumerate(pairs)])
    cells = [(a * 5 + b) * 5 + c for a, b, c in (ticket.ids for ticket in tickets)]
    times, expected = np.bincount(cells, minlength=125), draws * chance.reshape(-1)
    assert not times[expected == 0].any()
    # Rare texts together, so that each cell expects some.
    rare = expected < 5
    times = np.append(times[~rare], times[rare].sum())
    expected = np.append(expected[~rare], max(expected[rare].sum(), 1e-9))
    degrees = len(expected) - 1
    chi2 = ((times - expected) ** 2 / expected).sum()
    assert degrees > 10 and abs(chi2 - degrees) < 4 * np.sqrt(2 * degrees)


@pytest.mark.slow
def test_texts_with_penalties_beside_them_and_prefixes_that_are_used_again(tokenizer):
    """The draft's cache follows through texts without drafts, and through copies of slots."""
    model = model_of(tokenizer)
    head = tuple(np.random.default_rng(3).integers(1, 5, 40).tolist())
    requests = [
        Request(prompt=(*head[: 20 + 3 * i], 1 + i % 4), max_tokens=20, seed=i,
                sampling=Sampling(temperature=0, frequency_penalty=0.5 * (i % 3 == 0)))
        for i in range(12)
    ]  # fmt: skip
    plain = [Engine(model, SETTINGS).run([request])[0].ids for request in requests]
    engine = Engine(model, dataclasses.replace(SETTINGS, speculate=3), draft=model)
    assert [ticket.ids for ticket in engine.run(requests)] == plain
    assert engine.stats.prefix_hits > 0 and engine.stats.accepted == engine.stats.drafted > 0


class Alternating:
    """A constraint: no letter twice in a row, and an end after nine."""

    vocab_size = 5

    def __init__(self, last: int | None = None, made: int = 0) -> None:
        self.last, self.made = last, made
        self.done = made == 9

    def start(self) -> Alternating:
        return Alternating()

    def allowed(self) -> np.ndarray:
        return (np.arange(5) != self.last) & (np.arange(5) > 0)

    def advance(self, token: int) -> None:
        self.__init__(token, self.made + 1)


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [0.0, 0.9])
@pytest.mark.parametrize("kind", ["lookup", "draft"])
def test_texts_beside_penalties_and_constraints_go_on_speculating(tokenizer, kind, temperature):
    """Each is the text that it is alone, and those that are shaped are those of plain decoding."""
    model = model_of(tokenizer)
    rng = np.random.default_rng(4)

    def request(i: int, tokens: int, constraint: Any = None, **penalties: Any) -> Request:
        return Request(
            prompt=tuple(rng.integers(1, 5, 20 + i).tolist()), max_tokens=tokens, seed=i,
            sampling=Sampling(temperature=temperature, **penalties), constraint=constraint,
            log_probs=1,
        )  # fmt: skip

    shaped = [
        request(0, 90, frequency_penalty=0.2, repetition_penalty=1.3),
        request(1, 30, Alternating()),
        request(2, 20, logit_bias=((2, 1.5),), presence_penalty=0.5),
        request(3, 9, min_tokens=9),
    ]
    free = [request(4 + i, 40) for i in range(4)]
    settings = dataclasses.replace(SETTINGS, slots=5, speculate=3)
    draft = nearby(model) if kind == "draft" else None

    def engine() -> Engine:
        return Engine(model, settings, draft=draft)

    # The first one lasts as long as all others, so that every call has a shaped text.
    together = engine()
    made = together.run([*shaped[:1], *free, *shaped[1:]])
    assert 0 < together.stats.accepted <= together.stats.drafted
    plain = Engine(model, SETTINGS).run(shaped)
    for mine, theirs in zip([made[0], *made[5:]], plain, strict=True):
        assert (mine.ids, mine.finish_reason) == (theirs.ids, theirs.finish_reason)
        for one, other in zip(mine.tokens, theirs.tokens, strict=True):
            assert one.log_prob == pytest.approx(other.log_prob, abs=1e-4)
    assert (len(plain[1].ids), plain[1].finish_reason) == (9, "stop")
    alone = engine().run(free)
    assert [ticket.ids for ticket in made[1:5]] == [ticket.ids for ticket in alone]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["plain", "lookup", "draft", "recurrent"])
def test_a_text_goes_on_from_one_that_ended_within_a_call(tokenizer, kind):
    """A call goes on behind a stop token: rings, and states, hold what no text has."""
    config = CONFIG if kind != "recurrent" else RECURRENT
    model = model_of(tokenizer, config=config)
    settings = dataclasses.replace(SETTINGS, slots=1, speculate=3 * (kind in ("lookup", "draft")))
    prompt = tuple(np.random.default_rng(5).integers(1, 5, 30).tolist())
    draft = nearby(model) if kind == "draft" else None

    def made(*requests: Request) -> list[list[int]]:
        engine = Engine(model, settings, draft=draft)
        return [engine.run([request])[0].ids for request in requests]

    first = Request(prompt=prompt, max_tokens=40, sampling=Sampling(), seed=8)
    free = made(first)[0]
    end = next(i for i in range(1, 9) if free[i] not in free[:i])
    first = dataclasses.replace(first, stop_ids=(free[end],))
    for text in ((*prompt, *free[: end + 1], 1, 2), (*prompt[:24], 1, 2)):
        again = Request(prompt=text, max_tokens=30)
        assert made(first, again) == [free[:end], *made(again)]


@pytest.mark.slow
def test_everything_is_compiled_by_the_warm_up(tokenizer):
    model = model_of(tokenizer)
    engine = Engine(model, dataclasses.replace(SETTINGS, speculate=3), draft=nearby(model))
    engine.warm_up()
    before = engine.stats.compiled
    engine.run([*requests_of(GREEDY, 3), *requests_of(Sampling(), 3)])
    assert engine.stats.compiled == before


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lookup", "draft"])
def test_over_a_mesh_greedy_texts_are_the_same_and_nothing_compiles_later(tokenizer, kind):
    """XLA's own events: a program that is not traced again may still be compiled again."""
    model = model_of(tokenizer)
    mesh = make_mesh(ParallelConfig(data=2, tensor=2), jax.devices()[:4])
    requests = requests_of(GREEDY, 5)
    plain = [ticket.ids for ticket in Engine(model, SETTINGS).run(requests)]
    draft = nearby(model) if kind == "draft" else None
    settings = dataclasses.replace(SETTINGS, speculate=2)
    engine = Engine(model, settings, mesh=mesh, draft=draft)
    engine.warm_up()
    compiled: list[str] = []

    def heard(name: str, *_: Any, **__: Any) -> None:
        compiled.extend([name] * name.endswith("backend_compile_duration"))

    jax.monitoring.register_event_duration_secs_listener(heard)
    try:
        assert [ticket.ids for ticket in engine.run(requests)] == plain
        spread = Sampling(frequency_penalty=0.5, logit_bias=((1, 1.0),))
        scored = Request(prompt=(1, 2, 3), max_tokens=2, prompt_log_probs=1)
        for _ in range(2):
            engine.run([*requests_of(spread, 2), *requests_of(Sampling(), 2, log_probs=1), scored])
    finally:
        jax.monitoring.unregister_event_duration_listener(heard)
    assert engine.stats.accepted > 0 and not compiled


def test_drafts_that_do_not_fit_are_refused(tokenizer, tiny_dataset: Path):
    model = model_of(tokenizer)
    other = dataclasses.replace(model, tokenizer=Tokenizer.load(tiny_dataset))
    with pytest.raises(UserError, match=r"tokenizer \(512 tokens\) is not the model's \(5\)"):
        Engine(model, SETTINGS, draft=other)
    short = model_of(tokenizer, config=tiny.model_config(max_seq_len=64))
    with pytest.raises(UserError, match="draft's context is 64 tokens, and max_len is 128"):
        Engine(model, SETTINGS, draft=short)
    with pytest.raises(UserError, match="The draft keeps a state"):
        Engine(model, SETTINGS, draft=model_of(tokenizer, config=RECURRENT))
    with pytest.raises(UserError, match="speculate is 17"):
        EngineSettings(speculate=17)
    with pytest.raises(UserError, match="speculate is 4, which must be less than prefill_chunk, 4"):
        Engine(model, EngineSettings(slots=1, prefill_chunk=4, speculate=4))
