"""The cache changes nothing: its logits are those of the full forward, greedy is their argmax."""

from __future__ import annotations

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from llm_jax.config import LatentConfig, Llama3Rope, ModelConfig, MoeConfig, UserError
from llm_jax.convert.parity import our_logits
from llm_jax.infer.beam import beam_search
from llm_jax.infer.decoder import Decoder, prepared
from llm_jax.infer.generator import generate
from llm_jax.infer.kv_cache import decode_attend, empty_cache, prefill_attend
from llm_jax.infer.sampling import GREEDY, Sampling
from llm_jax.models.common.attend import packed_attend
from llm_jax.models.decoder.transformer import DECODER
from llm_jax.models.protocol import Context

MODELS = {
    "gqa": tiny.model_config(),
    "dense": tiny.model_config(num_kv_heads=8),
    "window": tiny.model_config(sliding_window=5),
    # Three layers on a pattern of two: one layer is outside of the scan.
    "pattern": tiny.model_config(num_layers=3, sliding_window=5, window_pattern="LG"),
    "gemma2": tiny.model_config(
        activation="geglu", post_norm=True, norm_plus_one=True, scale_embeddings=True,
        attn_softcap=4.0, logit_softcap=6.0, attn_scale=0.2, tie_embeddings=True,
    ),
    "llama3-rope-qk-norm": tiny.model_config(
        qk_norm=True, rope_scaling=Llama3Rope(original_max_seq_len=8)
    ),
    "experts": tiny.model_config(
        num_layers=3, moe=MoeConfig(experts=4, top_k=2, d_ff=16, shared_d_ff=8, dense_layers=1)
    ),
    "latent": tiny.model_config(
        num_kv_heads=8, head_dim=12, sliding_window=9, window_pattern="LG",
        latent=LatentConfig(kv_rank=16, q_rank=24, rope_dim=4, value_dim=6),
    ),
    "sinks": tiny.model_config(sliding_window=5, window_pattern="LG", attn_sinks=True),
    "gpt2": tiny.model_config(
        activation="gelu", norm="layernorm", positions="learned", biases=("qkv", "out", "mlp"),
    ),
}  # fmt: skip
NO_EOS = -5


def params_of(model: ModelConfig):
    return jax.device_put(tiny.parameters(model, size=0.1))


def decoder_of(model: ModelConfig, sampling: Sampling = GREEDY, ends=(NO_EOS,), **compute):
    return Decoder(model, tiny.compute_config(**compute), sampling, model.vocab_size, ends)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "scan"), [*((name, True) for name in MODELS), ("pattern", False)])
def test_cached_logits_equal_the_full_forward(name, scan):
    model, params = MODELS[name], params_of(MODELS[name])
    decoder = decoder_of(model, scan_layers=scan)
    tokens = np.random.default_rng(0).integers(0, 64, (2, 24)).astype(np.int32)
    full = our_logits(params, model, tokens)
    # Row 0 has 3 tokens and 5 of padding, row 1 has 8.
    lengths = np.array([3, 8])
    padded = np.where(np.arange(8) < lengths[:, None], tokens[:, :8], 7)
    caches = empty_cache(model, 2, 24, jnp.dtype("float32"))
    positions = jnp.broadcast_to(jnp.arange(8), (2, 8))
    logits, caches = decoder.next_logits(
        params,
        padded,
        positions,
        prefill_attend(model, decoder.compute, 2, 8),
        caches,
        jnp.asarray(lengths - 1),
    )
    rows = np.arange(2)
    worst = np.abs(logits - full[rows, lengths - 1]).max()
    step = jax.jit(
        lambda token, position, caches: decoder.next_logits(
            params, token[:, None], position[:, None], decode_attend(model, position), caches,
            jnp.zeros_like(position),
        )
    )  # fmt: skip
    for i in range(16):
        at = lengths + i
        logits, caches = step(tokens[rows, at], at, caches)
        worst = max(worst, np.abs(logits - full[rows, at]).max())
    assert worst < 1e-5 * max(1, np.abs(full).max())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gqa", "pattern", "gpt2"])
def test_greedy_is_the_argmax_of_the_full_forward(name):
    model, params = MODELS[name], params_of(MODELS[name])
    prompts = [[1, 5, 9], [1, 44, 3, 2, 30, 31, 32], [1]]
    made = generate(params, decoder_of(model), prompts, max_tokens=20)
    for prompt, ids in zip(prompts, made.ids, strict=True):
        logits = our_logits(params, model, np.array([prompt + ids], np.int32))[0]
        assert ids == logits[len(prompt) - 1 : -1].argmax(-1).tolist()
        assert len(ids) == 20


@pytest.mark.parametrize("row", [None, 0])
def test_each_row_stops_at_its_own_end_of_document(row):
    """`row`: one whose third token ends a text too."""
    model, params = MODELS["gqa"], params_of(MODELS["gqa"])
    prompts = [[1, 5, 9], [1, 44, 3, 2, 30], [1]]
    free = generate(params, decoder_of(model), prompts, max_tokens=30).ids
    eos = free[1][4]  # a token that row 1 makes
    ends = (eos,) if row is None else (eos, free[row][2])
    ended = generate(params, decoder_of(model, ends=ends), prompts, max_tokens=30)
    for long, short, stopped in zip(free, ended.ids, ended.stopped, strict=True):
        places = [place for place, i in enumerate(long) if i in ends]
        assert stopped == bool(places)
        assert short == (long[: places[0]] if stopped else long)
    assert ended.stopped[1] and (row is None or len(ended.ids[row]) <= 2)


def test_padding_of_the_vocabulary_is_never_chosen():
    model, params = MODELS["gqa"], params_of(MODELS["gqa"])
    decoder = dataclasses.replace(decoder_of(model, Sampling(temperature=5.0)), vocab_size=20)
    made = generate(params, decoder, [[1], [2]], max_tokens=40)
    assert max(max(ids) for ids in made.ids) < 20


@pytest.mark.slow
def test_sampling_depends_on_the_seed_alone_and_streams_what_it_returns():
    model, params = MODELS["gqa"], params_of(MODELS["gqa"])
    decoder = decoder_of(model, Sampling(temperature=1.0))
    seen: list[list[int]] = [[], []]

    def on_tokens(fresh):
        for row, new in zip(seen, fresh, strict=True):
            row += new

    first = generate(params, decoder, [[1], [1]], max_tokens=40, seed=3, on_tokens=on_tokens)
    assert seen == first.ids
    assert generate(params, decoder, [[1], [1]], max_tokens=40, seed=3).ids == first.ids
    assert generate(params, decoder, [[1], [1]], max_tokens=40, seed=4).ids != first.ids
    assert first.ids[0] != first.ids[1]
    # The longer row beside it changes no draw of row 0.
    assert generate(params, decoder, [[1], [1, 2, 3]], max_tokens=40, seed=3).ids[0] == first.ids[0]


def test_a_prompt_beyond_the_context_is_one_sentence():
    model, params = MODELS["gqa"], params_of(MODELS["gqa"])
    with pytest.raises(UserError, match=r"60 tokens and --max-tokens is 5, more than .* 64"):
        generate(params, decoder_of(model), [[1] * 60], max_tokens=5)


@pytest.mark.slow
@pytest.mark.parametrize("balance_rate", [0.0, 1e-3])
def test_bfloat16_chooses_the_experts_that_training_chooses(balance_rate):
    moe = MoeConfig(experts=64, top_k=2, d_ff=8, balance_rate=balance_rate)
    model = tiny.model_config(moe=moe, norm="layernorm", biases=("out",))
    compute = tiny.compute_config(dtype="bfloat16")
    params = params_of(model)
    tokens = jnp.asarray(np.random.default_rng(0).integers(0, 64, (4, 32)), jnp.int32)
    positions = jnp.broadcast_to(jnp.arange(32), tokens.shape)

    @jax.jit
    def forward(params):
        attend = packed_attend(model, Context(compute), jnp.ones_like(tokens))
        x, _, routing = DECODER.hidden(params, tokens, positions, attend, model, compute)
        return DECODER.logits(x, params, model), routing.load_E

    ready = prepared(params, model, compute)
    assert ready["blocks"]["moe"]["up"].dtype == jnp.bfloat16
    for ours, theirs in zip(forward(ready), forward(params), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.slow
@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_logits_that_are_not_finite_are_refused(broken):
    model = MODELS["gqa"]
    params = tiny.parameters(model, size=0.1)
    params["unembed"][0, 7] = broken
    for decoder in (decoder_of(model), decoder_of(model, Sampling())):
        with pytest.raises(UserError, match="not finite"):
            generate(params, decoder, [[1, 5]], max_tokens=3)
    with pytest.raises(UserError, match="not finite"):
        beam_search(params, decoder_of(model), [1, 5], beams=2, max_tokens=3)


@pytest.mark.slow
@pytest.mark.parametrize("ends", [(2,), (2, 4)])
def test_beam_search_with_every_beam_finds_the_likeliest_continuation(ends):
    model = tiny.model_config(vocab_size=5, num_layers=1)
    params = jax.device_put(tiny.parameters(model, size=0.5))
    prompt, n = [1, 3], 3

    candidates = list(itertools.product(range(5), repeat=n))
    rows = np.array([prompt + list(ids) for ids in candidates], np.int32)
    logp = jax.nn.log_softmax(our_logits(params, model, rows)[:, len(prompt) - 1 : -1])
    logp = np.take_along_axis(np.asarray(logp), rows[:, len(prompt) :, None], axis=2)[..., 0]
    is_end = np.isin(rows[:, len(prompt) :], ends)
    counted = np.cumsum(is_end, axis=1) - is_end == 0  # up to the first end
    scores = np.sum(logp * counted, axis=1)
    best = candidates[int(scores.argmax())]
    ids, stopped, logp = beam_search(
        params, decoder_of(model, ends=ends), prompt, beams=75, max_tokens=n
    )
    places = [place for place, i in enumerate(best) if i in ends]
    assert stopped == bool(places)
    assert ids == list(best[: places[0]] if stopped else best)
    assert logp == pytest.approx(scores.max(), abs=1e-5)


def test_one_beam_is_greedy():
    model, params = MODELS["gqa"], params_of(MODELS["gqa"])
    decoder = decoder_of(model)
    greedy = generate(params, decoder, [[1, 5, 9]], max_tokens=12).ids[0]
    assert beam_search(params, decoder, [1, 5, 9], beams=1, max_tokens=12)[0] == greedy


@pytest.mark.slow
def test_greedy_equals_transformers_generate(tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=56, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
    )  # fmt: skip
    torch.manual_seed(0)
    theirs = transformers.LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    theirs.save_pretrained(tmp_path)
    from llm_jax.convert.hf_model import read

    model, params = read(tmp_path)
    prompts = [[1, 5, 9], [1, 44, 3, 7, 30]]
    made = generate(params, decoder_of(model, ends=(2,)), prompts, max_tokens=30)
    for prompt, ids in zip(prompts, made.ids, strict=True):
        wanted = theirs.generate(
            torch.tensor([prompt]),
            max_new_tokens=30,
            do_sample=False,
            eos_token_id=2,
            pad_token_id=0,
        )[0, len(prompt) :].tolist()
        assert ids == (wanted[: wanted.index(2)] if 2 in wanted else wanted)
