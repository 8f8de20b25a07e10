"""The engine: a request gets what it gets alone, whoever is beside it; slots come back; nothing is
compiled after the warm-up."""

from __future__ import annotations

import functools
import random
import threading
import time

import jax
import numpy as np
import pytest
import tiny

from llm_jax.config import (
    LatentConfig,
    LongRope,
    MoeConfig,
    ParallelConfig,
    RecurrentConfig,
    UserError,
)
from llm_jax.convert.parity import our_logits
from llm_jax.infer.engine import cache, weights
from llm_jax.infer.engine.engine import Engine
from llm_jax.infer.engine.request import Request
from llm_jax.infer.engine.settings import EngineSettings, QueueFull
from llm_jax.infer.sampling import Sampling
from llm_jax.parallel.mesh import make_mesh

MODELS = {
    "full": tiny.model_config(),
    "windows": tiny.model_config(sliding_window=5, window_pattern="LG", attn_sinks=True),
    "latent": tiny.model_config(
        num_kv_heads=8, head_dim=12, sliding_window=9, window_pattern="LG",
        latent=LatentConfig(kv_rank=16, q_rank=24, rope_dim=4, value_dim=6),
    ),
    "longrope": tiny.model_config(
        rope_scaling=LongRope(
            original_max_seq_len=16, attention_factor=1.2, short_factors=(1.0, 1.1, 1.3, 1.5),
            long_factors=(1.0, 2.0, 3.0, 4.0),
        )
    ),
    "experts": tiny.model_config(moe=MoeConfig(experts=4, top_k=2, d_ff=16, shared_d_ff=8)),
    "alibi": tiny.model_config(positions="alibi"),
    "lstm": RecurrentConfig(vocab_size=64, num_layers=2, d_model=32, max_seq_len=64),
}  # fmt: skip
CHUNK = 8


@functools.cache
def params_of(name: str):
    return jax.device_put(tiny.parameters(MODELS[name], size=0.3))


def engine_of(name: str = "full", mesh=None, **settings) -> Engine:
    chosen = {"slots": 3, "max_len": 64, "prefill_chunk": CHUNK} | settings
    return Engine.of_parameters(
        MODELS[name], params_of(name), tiny.compute_config(), 64, EngineSettings(**chosen), mesh
    )


def request(prompt, count: int, **fields) -> Request:
    return Request(prompt=tuple(prompt), max_tokens=count, **fields)


def random_requests(seed: int, count: int) -> list[Request]:
    """Prompts of 1 to 40 tokens, half of them with a prefix of another."""
    rng, made = random.Random(seed), []
    for _ in range(count):
        start = (
            list(rng.choice(made).prompt[: rng.randint(1, 30)])
            if made and rng.random() < 0.5
            else [1]
        )
        prompt = start + [rng.randrange(3, 64) for _ in range(rng.randint(0, 10))]
        made.append(request(prompt, rng.randint(1, 20)))
    return made


def greedy_alone(name: str, one: Request) -> list[int]:
    """By the full forward pass, without any cache."""
    text = list(one.prompt)
    for _ in range(one.max_tokens):
        logits = our_logits(params_of(name), MODELS[name], np.array([text], np.int32))[0, -1]
        text.append(int(logits.argmax()))
    return text[len(one.prompt) :]


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("name", ["full", "windows", "latent", "longrope", "experts"])
def test_the_orders_in_which_a_tpu_keeps_arrays_give_the_same_tokens(name, devices, monkeypatch):
    asked = random_requests(11, 6)
    wanted = [ticket.ids for ticket in engine_of(name).run(asked)]
    monkeypatch.setattr(cache, "columns_first", lambda: True)
    monkeypatch.setattr(weights, "platform", lambda: "tpu")
    part = jax.tree.leaves(cache.empty_cache(MODELS[name], 3, 63, CHUNK, "float32"))[0]
    assert part.shape[1] > part.shape[2]  # columns before heads
    parallel = ParallelConfig(data=1, tensor=devices)
    mesh = make_mesh(parallel, jax.devices()[:devices]) if devices > 1 else None
    engine = engine_of(name, mesh, max_len=63)  # engines of equal shapes share their programs
    layer = engine.params["layers"][0]
    if name != "latent":
        assert layer["attn"]["q"].format.layout.major_to_minor == (1, 2, 0)
    assert [ticket.ids for ticket in engine.run(asked)] == wanted


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in MODELS if name != "experts"])
def test_any_order_of_arrival_gives_each_request_the_tokens_that_it_gets_alone(name):
    """Prompts of several pieces, shared prefixes, more requests than slots, cancelled ones."""
    asked = random_requests(7, 16)
    # A new engine for each: no prefix is there.
    wanted = [engine_of(name).run([one])[0].ids for one in asked]
    engine, rng = engine_of(name), random.Random(3)
    order = list(range(len(asked))) * 2
    rng.shuffle(order)
    tickets, cancelled = [], set()
    for number in order:
        tickets.append((number, engine.submit(asked[number])))
        for _ in range(rng.randint(0, 2)):
            engine.step()
        unfinished = [ticket for _, ticket in tickets if not ticket.done]
        if unfinished and rng.random() < 0.25:
            victim = rng.choice(unfinished)
            engine.cancel(victim)
            cancelled.add(victim)
    while engine.step():
        pass
    for number, ticket in tickets:
        if ticket in cancelled:
            assert ticket.finish_reason in ("cancelled", "length")
            assert ticket.ids == wanted[number][: len(ticket.ids)]
        else:
            assert (ticket.finish_reason, ticket.ids) == ("length", wanted[number])
    assert cancelled
    assert engine.stats.running == engine.stats.waiting == 0
    assert engine.stats.finished + engine.stats.cancelled == len(tickets)
    if name in ("full", "windows", "latent", "alibi"):
        assert engine.stats.prefix_hits > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["full", "windows"])
def test_greedy_is_the_argmax_of_the_full_forward(name):
    asked = [request([1, *range(5, 32)], 6), request([1, 9], 6)]
    for ticket, one in zip(engine_of(name).run(asked), asked, strict=True):
        assert ticket.ids == greedy_alone(name, one)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["full", "windows", "longrope", "lstm"])
def test_log_probs_are_those_of_the_full_forward(name):
    text = [1, *np.random.default_rng(0).integers(3, 64, 21).tolist()]
    (ticket,) = engine_of(name).run([request(text, 4, log_probs=3, prompt_log_probs=2)])
    whole = [*text, *ticket.ids]
    logits = our_logits(params_of(name), MODELS[name], np.array([text], np.int32))[0]
    wanted = np.asarray(jax.nn.log_softmax(logits))
    assert ticket.prompt[0].log_prob is None and [one.id for one in ticket.prompt] == text
    for place, one in enumerate(ticket.prompt[1:]):
        assert one.log_prob == pytest.approx(wanted[place, one.id], abs=1e-4)
        assert [i for i, _ in one.top] == np.argsort(-wanted[place])[:2].tolist()
    logits = our_logits(params_of(name), MODELS[name], np.array([whole], np.int32))[0]
    wanted = np.asarray(jax.nn.log_softmax(logits))
    for place, one in enumerate(ticket.tokens, start=len(text) - 1):
        if name != "longrope" or place < 16:  # whose factors depend on the length of the text
            assert one.log_prob == pytest.approx(wanted[place, one.id], abs=1e-4)
        assert len(one.top) == 3
        assert one.top[0] == (one.id, one.log_prob)  # greedy: the identical float


def test_a_text_is_scored_without_new_tokens():
    (ticket,) = engine_of().run([request([1, 5, 9], 0, prompt_log_probs=0)])
    assert len(ticket.prompt) == 3 and ticket.tokens == [] and ticket.finish_reason == "length"
    assert all(one.top == () and one.log_prob is not None for one in ticket.prompt[1:])


def test_a_shared_prefix_is_computed_once():
    start = [1, *range(3, 33)]
    engine = engine_of()
    first = engine.submit(request([*start, 40], 8))
    second = engine.submit(request([*start, 41, 42], 8))
    while engine.step():
        pass
    third = engine.run([request([*start, 40, *first.ids[:3]], 4)])[0]
    alone = engine_of().run([request([*start, 40, *first.ids[:3]], 4)])[0]
    assert third.reused == len(start) + 1 + 2  # all but the last token, with which decoding begins
    assert (first.reused, alone.reused) == (0, 0) and third.ids == alone.ids
    assert second.ids == engine_of().run([request([*start, 41, 42], 8)])[0].ids
    # While a text with the prefix is running, its slot is copied.
    running = engine.submit(request([*start, 50], 20))
    while not running.tokens:
        engine.step()
    copied = engine.submit(request([*start, 50, *[token.id for token in running.tokens], 7], 2))
    while engine.step():
        pass
    assert copied.reused >= len(start) + 1


@pytest.mark.slow
def test_nothing_is_compiled_after_the_warm_up():
    engine = engine_of(slots=2, max_len=48)
    engine.warm_up()
    before = engine.stats.compiled
    assert before >= 7
    engine.run(random_requests(1, 6)[:4])
    shared = [1, *range(3, 30)]
    engine.run(
        [
            request([*shared, 5], 9, sampling=Sampling(temperature=0.7, top_p=0.9), log_probs=5),
            request([*shared, 6], 3, sampling=Sampling(repetition_penalty=1.3, min_tokens=2)),
            request([1, 4], 3, sampling=Sampling(logit_bias=((5, 3.0),)), stop_ids=(2,)),
            request(shared, 0, prompt_log_probs=1),
        ]
    )
    assert engine.stats.compiled == before


def test_the_draws_of_a_request_do_not_depend_on_its_neighbours():
    warm = Sampling(temperature=1.0, top_k=40)
    ask = functools.partial(request, [1, 5, 9], 12, sampling=warm)
    alone = engine_of().run([ask(seed=3)])[0].ids
    others = [request([1, 7], 15, sampling=warm, seed=i) for i in range(4)]
    engine = engine_of()
    tickets = engine.run([*others[:2], ask(seed=3), *others[2:], ask(seed=4), request([1, 5], 5)])
    assert tickets[2].ids == alone != tickets[5].ids


@pytest.mark.slow
def test_penalties_and_biases_of_one_request_do_not_reach_the_next():
    engine = engine_of(slots=1)
    plain = request([1, 5, 9], 10)
    before = engine.run([plain])[0].ids
    pushed = Sampling(temperature=0.0, logit_bias=((7, 100.0),))
    assert engine.run([request([1, 5, 9], 4, sampling=pushed)])[0].ids == [7] * 4
    spread = Sampling(temperature=0.0, frequency_penalty=2.0, presence_penalty=2.0)
    varied = engine.run([request([1, 5, 9], 10, sampling=spread)])[0].ids
    assert len(set(varied)) > len(set(before))
    both = engine.run([plain, request([1], 3, sampling=pushed)])
    assert both[0].ids == before


def test_a_stop_id_ends_a_text_and_is_not_part_of_it():
    engine = engine_of()
    free = engine.run([request([1, 5, 9], 20)])[0].ids
    end = free[6]
    first = free.index(end)
    ticket = engine.run([request([1, 5, 9], 20, stop_ids=(end,))])[0]
    assert (ticket.ids, ticket.finish_reason) == (free[:first], "stop")
    later = Sampling(temperature=0.0, min_tokens=first + 2)
    ticket = engine.run([request([1, 5, 9], 20, stop_ids=(end,), sampling=later)])[0]
    assert len(ticket.ids) >= first + 2 and end not in ticket.ids


def test_the_thread_answers_many_at_once_and_drains():
    engine, seen, ended = engine_of(queue=4), {}, threading.Event()

    def on_token(ticket, token):
        seen.setdefault(ticket, []).append(token)
        if token is None:
            ended.set()

    asked = random_requests(5, 4)
    with pytest.raises(QueueFull, match="4 requests wait"):
        for one in asked * 2:
            engine.submit(one)
    engine.start()
    tickets = engine.run(asked)
    told = engine.submit(asked[0], on_token)
    told.wait(60)
    assert ended.wait(60)
    assert [token.id for token in seen[told][:-1]] == told.ids == tickets[0].ids
    last = engine.submit(request([1], 30))
    engine.close()
    assert last.finish_reason == "length" and len(last.ids) == 30
    with pytest.raises(UserError, match="closed"):
        engine.submit(asked[0])
    cut = engine_of()
    ticket = cut.submit(request([1], 30))
    cut.close(drain=False)
    assert ticket.finish_reason == "cancelled"


def test_a_listener_that_fails_ends_its_own_request_alone():
    def broken(ticket, token):
        raise OSError("gone")

    engine = engine_of()
    bad, good = engine.submit(request([1, 5], 20), broken), engine.submit(request([1, 5], 20))
    while engine.step():
        pass
    assert len(good.wait().ids) == 20
    with pytest.raises(UserError, match="OSError: gone"):
        bad.wait()


def test_who_waits_for_the_end_finds_all_that_the_listener_heard():
    engine, heard = engine_of(), []

    def slow(ticket, token):
        if token is None:
            time.sleep(0.2)
        heard.append(token)

    engine.start()
    ticket = engine.submit(request([1, 5], 3), slow).wait(60)
    assert len(heard) == 4 and heard[-1] is None and ticket.finish_reason == "length"
    engine.close()


@pytest.mark.parametrize("what", ["prefill", "decode", "admitted", "copy"])
def test_an_error_of_the_engine_ends_all_requests(what, monkeypatch):
    """Such as the device's memory being full: those in slots, between, and in the queue."""
    engine = engine_of(slots=2)
    shared = [1, *range(3, 33)]
    tickets = [engine.submit(request([*shared, 5], 30))]
    while not tickets[0].tokens:
        engine.step()

    def full(*_):
        raise RuntimeError("RESOURCE_EXHAUSTED")

    monkeypatch.setattr(engine._batch, what, full)
    tickets += [engine.submit(request([*shared, 40 + i, 7, *range(3, 30)], 3)) for i in range(3)]
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    engine.start()
    for ticket in tickets:
        with pytest.raises(UserError, match="engine has stopped"):
            ticket.wait(60)
    assert engine.closed and engine.stats.running == engine.stats.waiting == 0
    with pytest.raises(UserError, match="closed"):
        engine.submit(request([1], 1))
    engine.close()


def test_a_request_that_cannot_fit_leaves_none_of_its_run_behind():
    engine = engine_of()
    with pytest.raises(UserError, match="60 tokens"):
        engine.run([request([1, 5], 5), request([1] * 60, 5)])
    assert not engine.step() and (engine.stats.waiting, engine.stats.tokens) == (0, 0)


def test_a_text_whose_keys_depend_on_its_length_is_no_beginning_of_another():
    """A text of 12 tokens, and one of 30 that begins with it, over the 16 of the short factors."""
    engine, long = engine_of("longrope"), [1, *range(3, 32)]
    engine.run([request(long[:12], 1)])
    again = request(long, 6, log_probs=0)
    after, alone = engine.run([again])[0], engine_of("longrope").run([again])[0]
    assert after.reused == 0 and after.tokens == alone.tokens


def test_broken_weights_end_the_request_and_not_the_engine():
    params = tiny.parameters(MODELS["full"])
    params["embed"]["tokens"][9] = np.nan
    settings = EngineSettings(slots=3, max_len=64, prefill_chunk=CHUNK)
    engine = Engine.of_parameters(MODELS["full"], params, tiny.compute_config(), 64, settings)
    good, bad = engine.submit(request([1, 5], 1)), engine.submit(request([1, 9], 3))
    while engine.step():
        pass
    assert good.wait().finish_reason == "length"
    with pytest.raises(UserError, match="not finite"):
        bad.wait()
    assert bad.finish_reason is None


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda: request([], 3), "no token"),
        (lambda: request([1], -1), "max_tokens is -1"),
        (lambda: request([1], 1, seed=2**32), "seed is 4294967296"),
        (lambda: request([1], 1, log_probs=21), "log_probs is 21"),
        (lambda: engine_of().submit(request([1] * 60, 5)), "60 tokens and max_tokens is 5, .* 64"),
        (lambda: engine_of().submit(request([1, 64], 5)), "token 64"),
        (
            lambda: engine_of().submit(request([1], 5, sampling=Sampling(logit_bias=((64, 1.0),)))),
            "logit_bias has token 64: give ids from 0 to 63",
        ),
        (lambda: engine_of(max_len=65), "max_len is 65, more than .* 64"),
        (lambda: EngineSettings(slots=0), "slots is 0"),
    ],
)
def test_what_can_never_work_is_one_sentence(ask, words):
    with pytest.raises(UserError, match=words):
        ask()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["full", "latent", "experts", "lstm"])
def test_weights_of_8_bits_are_a_quarter_and_nearly_the_same(name):
    """The bytes are those of what a step reads; log-probabilities are of the same text."""
    text = request([1, *range(5, 35)], 0, prompt_log_probs=0)
    engines = engine_of(name), engine_of(name, weights="int8")
    exact, near = (
        np.array([one.log_prob for one in engine.run([text])[0].prompt[1:]]) for engine in engines
    )
    assert 1e-6 < np.abs(exact - near).mean() < 0.04 * exact.std()

    def size(engine: Engine) -> int:
        params = engine.params
        return sum(leaf.nbytes for leaf in jax.tree.leaves({**params, "embed": None}))

    assert size(engines[1]) < 0.35 * size(engines[0])


@pytest.mark.slow
def test_weights_of_8_bits_over_a_mesh_make_the_texts_of_one_device():
    asked = random_requests(2, 3)
    mesh = make_mesh(ParallelConfig(data=2, tensor=2), jax.devices()[:4])
    over = engine_of("full", mesh, slots=4, weights="int8").run(asked)
    one = engine_of("full", slots=4, weights="int8").run(asked)
    assert [ticket.ids for ticket in over] == [ticket.ids for ticket in one]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["full", "windows", "lstm"])
def test_greedy_over_a_mesh_is_that_of_one_device(name):
    asked = random_requests(2, 6)
    mesh = make_mesh(ParallelConfig(data=2, tensor=2), jax.devices()[:4])
    engine = engine_of(name, mesh, slots=4)
    for over, one in zip(engine.run(asked), engine_of(name, slots=4).run(asked), strict=True):
        assert over.ids == one.ids


def test_slots_that_the_mesh_does_not_divide_are_refused():
    mesh = make_mesh(ParallelConfig(data=2, tensor=2), jax.devices()[:4])
    with pytest.raises(UserError, match="slots is 3, which the 2 batch shards"):
        engine_of("full", mesh, slots=3)
