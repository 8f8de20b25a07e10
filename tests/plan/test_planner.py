"""Plans: they cost what the budget is, build, divide their mesh, fit, and reach `train`."""

import dataclasses
import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_jax.cli import main
from llm_jax.config import ModelConfig, RunConfig, UserError, from_json, to_json
from llm_jax.facts.calibration import ChipFactors, calibration
from llm_jax.facts.counts import active_parameters, token_flops, total_parameters
from llm_jax.facts.hardware import CHIPS, chip
from llm_jax.facts.prices import shipped
from llm_jax.laws.published import PRESETS, preset
from llm_jax.plan import this_machine
from llm_jax.plan.architecture import FAMILIES, choose
from llm_jax.plan.isoflop import candidates, flat_range
from llm_jax.plan.machines import Machine, machines
from llm_jax.plan.memory import HEADROOM, Layout
from llm_jax.plan.network import network
from llm_jax.plan.output import result
from llm_jax.plan.planner import plan
from llm_jax.plan.request import Request, Serving, at_serving_price
from llm_jax.plan.roofline import step_time
from llm_jax.plan.run_config import run_config

LAW = preset("besiroglu-2024")


def request(**values) -> Request:
    return Request(**{"chip": chip("v5p"), "law": LAW, "budget": "flops", **values})


def assert_sound(made) -> None:
    """Builds, divides its mesh, splits its batch, fits with 10% to spare."""
    model, run = made.model, made.execution
    mesh = run.layout
    assert mesh.devices == run.machine.devices
    for width in (model.num_heads, model.num_kv_heads, model.d_ff, model.vocab_size):
        assert width % mesh.tensor == 0
    assert model.d_model % mesh.fsdp == 0
    assert run.batch_sequences % (mesh.batch_shards * mesh.accumulate) == 0
    capacity = made.request.chip.hbm_bytes / made.request.chip.devices_per_chip
    assert sum(run.memory.values()) <= (1 - HEADROOM) * capacity
    assert run.machine.piece in run.machine.chip.slices
    assert model.head_dim in (64, 128)
    config = run_config(made, name="x", data="data/x")
    assert from_json(to_json(config), RunConfig) == config
    assert config.steps * config.batch_tokens == made.tokens
    assert 0 < made.mfu < 1
    assert made.mfu * (1 - 1e-12) <= made.hfu < 1
    assert run.time.low <= run.time.expected <= run.time.high


@pytest.mark.slow
@settings(deadline=None, max_examples=25)
@given(
    exponent=st.floats(18, 26),
    name=st.sampled_from(sorted(CHIPS)),
    family=st.sampled_from(sorted(FAMILIES)),
)
def test_every_plan_is_sound_and_meets_its_flops(exponent, name, family):
    try:
        made = plan(request(amount=10**exponent, chip=chip(name), family=family))
    except UserError as refusal:
        # More than 30B parameters do not fit one slice of the small chips; with eight experts, of
        # which a token uses two, that is a smaller budget. On the largest slice that holds it, a
        # batch may have fewer sequences than there are chips.
        assert re.search("would hold it|A batch of .* is too small for the", str(refusal))
        assert exponent > (22 if family == "moe" else 23)
        return
    assert_sound(made)
    assert made.flops == pytest.approx(10**exponent, rel=0.02)
    assert active_parameters(made.model) == pytest.approx(made.optimum.params, rel=0.02)


@pytest.mark.slow
@settings(deadline=None, max_examples=15)
@given(exponent=st.floats(2, 6), name=st.sampled_from(["v5p", "v5e", "h100"]))
def test_dollars_to_plan_to_cost_returns_the_dollars(exponent, name):
    made = plan(request(budget="usd", amount=10**exponent, chip=chip(name)))
    assert_sound(made)
    assert made.usd == pytest.approx(10**exponent, rel=0.02)
    assert made.usd <= 10**exponent * (1 + 1e-9)
    assert made.usd == pytest.approx(
        made.chips * made.hours * shipped().quote(name, "on-demand").usd
    )


@pytest.mark.slow
@settings(deadline=None, max_examples=15)
@given(exponent=st.floats(18, 24), more=st.floats(1.5, 100))
def test_more_budget_never_plans_a_worse_loss(exponent, more):
    """Between architectures, within the 2% that whole heads move the size."""
    less, more = (plan(request(amount=10**exponent * factor)) for factor in (1, more))
    assert more.loss <= less.loss + 1e-3


def test_chip_hours_of_a_deadline_are_kept():
    made = plan(request(budget="chip-hours", amount=64 * 24.0, chips=64))
    assert made.chips == 64
    assert made.hours == pytest.approx(24, rel=0.005)
    assert made.execution.machine.name == "v5p-128"


def test_fixed_tokens_and_fixed_size():
    made = plan(request(amount=1e21, tokens=1e11))
    assert made.tokens == pytest.approx(1e11, rel=0.001)
    assert made.flops == pytest.approx(1e21, rel=0.02)
    made = plan(request(amount=1e21, params=1e9))
    assert made.params == pytest.approx(1e9, rel=0.02)
    assert made.flops == pytest.approx(1e21, rel=0.001)


def test_inference_makes_a_smaller_model_on_the_same_budget():
    plain = plan(request(amount=1e23))
    served = plan(request(amount=1e23, inference_tokens=1e13))
    assert served.params < 0.7 * plain.params
    total = served.flops + 2 * served.params * 1e13
    assert total == pytest.approx(1e23, rel=0.02)


@pytest.mark.slow
def test_serving_by_cost_weighs_its_tokens(capsys):
    """At 40% of the peak and the price of training, which reaches the chip's share: share/0.4 times
    its FLOPs' cost; generating at 4% on half of the tokens: eleven halves of that."""
    times = calibration().of(chip("v5p")).share / 0.4
    served = request(budget="usd", amount=1e6, inference_tokens=1e12)
    same = Serving(chip=chip("v5p"), prompt_share=1.0, prefill_mfu=0.4)
    assert at_serving_price(served, same).inference_tokens == pytest.approx(times * 1e12)
    mixed = dataclasses.replace(same, prompt_share=0.5, decode_mfu=0.04)
    assert at_serving_price(served, mixed).inference_tokens == pytest.approx(5.5 * times * 1e12)
    flags = ["--usd", "1e6", "--inference-tokens", "1T", "--serve-chip", "v5p"]
    flags += ["--prompt-share", "0.5", "--prefill-mfu", "0.4", "--decode-mfu", "0.04"]
    code, out, _ = verb(capsys, *flags, "--json")
    assert code == 0
    found = json.loads(out)
    assert found["params"] == plan(at_serving_price(served, mixed)).params
    assert found["params"] < plan(served).params
    assert any(f"costs {5.5 * times:.3g} times" in reason for reason in found["reasons"])


def test_scores_take_their_time_on_a_cpu():
    """L·N·(T+1)/2 scores a token: 2·4·64.5 = 516, at 1e9 a second and the attainable share."""
    model = ModelConfig(
        vocab_size=100, num_layers=2, d_model=64, num_heads=4, num_kv_heads=2, head_dim=16,
        d_ff=128, max_seq_len=128,
    )  # fmt: skip
    flops = token_flops(model, 128)
    mesh = Layout(data=1, fsdp=1, tensor=1, accumulate=1, remat="none", dtype="float32")
    plain = dataclasses.replace(chip("a100"), kind="cpu", attainable=0.5)
    slow = dataclasses.replace(plain, score_rate=1e9)
    with_them, without = (
        step_time(model, flops, each, each.slices[0], 1, mesh, 1000).math for each in (slow, plain)
    )
    assert with_them - without == pytest.approx(516e-6 / slow.attainable)


def test_unique_tokens_count_epochs_and_warn():
    made = plan(request(amount=1e22, unique_tokens=1e10))
    free = plan(request(amount=1e22))
    assert made.epochs == pytest.approx(made.tokens / 1e10)
    assert made.loss > free.loss
    assert any("read" in text and "times" in text for text in result(made)["warnings"])


def test_spot_restarts_price_and_power_are_linear():
    base = plan(request(amount=1e21, chip=chip("h100"), chips=64, restart_overhead=0.0))
    other = plan(
        request(
            amount=1e21,
            chip=chip("h100"),
            chips=64,
            restart_overhead=0.25,
            spot_discount=0.6,
            usd_per_hour=5.0,
            watts=350.0,
        )
    )
    assert other.hours == pytest.approx(base.hours * 1.25)
    assert other.usd == pytest.approx(base.chip_hours * 1.25 * 5.0 * 0.4)
    assert other.kwh == pytest.approx(base.kwh * 1.25 / 2)
    assert base.co2_kg == pytest.approx(base.chip_hours * 0.7 * 1.1 * 0.48)


def test_llama3_8b_comes_out_of_its_size():
    """8.03B parameters with a vocabulary of 128,256: the published shape of Llama 3 8B."""
    model = choose(
        "llama", total_parameters, 8.03e9, params=8.03e9, seq_len=8192, vocab_size=128_256
    )
    shape = (model.num_layers, model.d_model, model.d_ff, model.num_heads, model.num_kv_heads)
    assert shape == (32, 4096, 14336, 32, 8)


PEAK = dataclasses.replace(
    calibration(),
    chips=(ChipFactors(name="v5p", share=1.0, interval=0.0, runs=0),),
    half_width=0.0,
)
"""Matmuls at the peak: the roofline alone."""


def test_scaling_book_rooflines():
    """ "How to scale your model", chapter 5: C/W is 2,550 on v5p, so that pure FSDP is bound by
    communication below 850 tokens a chip on three axes, and DCN below 71,360 tokens a chip…
    here, of 4.59e14/6.25e9 = 73,440 with the documented 50 Gb/s a chip."""
    v5p = chip("v5p")
    assert v5p.bf16_flops / (2 * v5p.ici_bandwidth) == pytest.approx(2550)
    cube = next(s for s in v5p.slices if s.topology == "4x4x4")
    mesh = Layout(data=1, fsdp=64, tensor=1, accumulate=1, remat="full", dtype="bfloat16")
    assert network(v5p, cube, 1, mesh).fsdp == pytest.approx(3 * 2 * 90e9)
    mixed = dataclasses.replace(mesh, fsdp=16, tensor=4)
    assert network(v5p, cube, 1, mixed).tensor == pytest.approx(180e9)
    assert network(v5p, cube, 1, mixed).fsdp == pytest.approx(360e9)
    small = next(s for s in v5p.slices if s.topology == "2x2x2")
    assert network(v5p, small, 1, dataclasses.replace(mesh, fsdp=8)).fsdp == pytest.approx(270e9)
    # Per chip: matmul time of a pass over communication time of a gather is tokens·2·axes·W/2C.
    model = choose("llama", total_parameters, 70e9, params=70e9, seq_len=4096, vocab_size=128_256)
    flops = dataclasses.replace(
        token_flops(model, 4096), attention=0.0, unembedding=0.0, last=0.0,
        projections=2.0 * total_parameters(model),
    )  # fmt: skip
    plain = dataclasses.replace(mesh, remat="none")
    at_balance = step_time(model, flops, v5p, cube, 1, plain, 850 * 64, fitted=PEAK)
    assert at_balance.math == pytest.approx(at_balance.axes["fsdp"], rel=0.01)


def test_network_of_gpus_and_slices():
    h100 = chip("h100")
    node = h100.slices[-1]
    inside = Layout(data=1, fsdp=8, tensor=1, accumulate=1, remat="none", dtype="bfloat16")
    across = dataclasses.replace(inside, fsdp=64)
    assert network(h100, node, 1, inside).fsdp == 450e9
    assert network(h100, node, 8, across).fsdp == pytest.approx(1 / (1 / 450e9 + 1 / 400e9))
    v5e = chip("v5e")
    pod = Layout(data=2, fsdp=256, tensor=1, accumulate=1, remat="none", dtype="bfloat16")
    assert network(v5e, v5e.slices[-1], 2, pod).data == 3.125e9


def test_machines_are_legal():
    assert [m.chips for m in machines(chip("v6e"), None)][:4] == [1, 4, 8, 16]
    assert machines(chip("v5p"), 12288)[0] == Machine(chip("v5p"), chip("v5p").slices[-1], 2)
    assert machines(chip("h100"), 24)[0].slices == 3


def test_candidates_and_flatness():
    best = LAW.optimum(1e21)
    points = candidates(LAW, 1e21, best.params, 0.0, 128_256)
    assert len(points) == 9
    assert min(points, key=lambda p: p.loss).params == pytest.approx(best.params)
    for point in points:
        assert 6 * point.params * point.tokens == pytest.approx(1e21)
        cheaper = LAW.optimum(1e21 * (1 - point.extra_flops))
        assert cheaper.loss == pytest.approx(point.loss, rel=1e-6)
    low, high = flat_range(LAW, 1e21, best.params)
    assert low < best.params < high
    for end in (low, high):
        assert LAW.loss(end, 1.01e21 / 6 / end) == pytest.approx(best.loss, rel=1e-9)


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_law_plans(name):
    made = plan(request(amount=1e21, law=preset(name)))
    assert_sound(made)
    found = result(made)
    assert (found["loss"] is None) == (preset(name).loss(1e9, 1e10) is None)
    assert json.loads(json.dumps(found)) == found


def verb(capsys, *argv: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main(["plan", *argv])
    out = capsys.readouterr()
    return stop.value.code, out.out, out.err


@pytest.mark.slow
def test_verb_json_run_and_report(tmp_path, capsys):
    config, page = tmp_path / "run.json", tmp_path / "plan.html"
    code, out, _ = verb(
        capsys, "--usd", "100K", "--chip", "h100", "--json", "--write", str(config),
        "--report", str(page), "--data", "data/mine",
    )  # fmt: skip
    assert code == 0
    found = json.loads(out)
    documented = (
        "optimum params tokens tokens_per_param flops loss loss_interval law model batch_tokens "
        "steps learning_rate mesh chips memory_bytes mfu step_seconds hours usd kwh warnings"
    )
    assert set(documented.split()) <= set(found)
    run = from_json(config.read_text(), RunConfig)
    assert run.steps == found["steps"]
    assert run.data.path == "data/mine"
    assert run.parallel.data * run.parallel.fsdp * run.parallel.tensor == found["chips"]
    html = page.read_text()
    assert html.count("<svg") == 3
    assert not re.search(r"""(src|href)=["']https?:""", html)
    assert "<script" not in html
    for text in ("Besiroglu et al. 2024", "NVIDIA data sheets", "256", "kept free"):
        assert text in html


def test_numbers_and_their_nouns_agree(tmp_path, capsys):
    page = tmp_path / "plan.html"
    code, out, _ = verb(
        capsys, "--flops", "1e13", "--chip", "v5e", "--chips", "1", "--report", str(page)
    )
    assert code == 0
    for text in (out, page.read_text(encoding="utf-8")):
        assert not re.search(r"\b1 (chips|hosts|layers|heads|steps|micro-batches)\b", text)
        assert not re.search(r" an? (parameter|device|step|chip-hour)\b", text)
        assert "per parameter" in text and "per device" in text and "1 micro-batch" in text
    assert re.search(r"cost +\$\d", out) and "$0.00 " not in out and "$0.00\n" not in out


def test_verb_writes_slices_as_replicas(tmp_path, capsys):
    config = tmp_path / "run.json"
    flags = ("--flops", "1e23", "--chip", "v6e", "--chips", "512", "--write", str(config))
    assert verb(capsys, *flags, "--family", "moe")[0] == 0
    run = from_json(config.read_text(), RunConfig)
    axes = run.parallel
    assert axes.replica == 2
    assert axes.replica * axes.data * axes.fsdp * axes.expert * axes.tensor == 512
    assert run.model.moe.experts == 8
    assert run.model.moe.d_ff == run.model.d_ff


def test_verb_text_and_law_only(capsys):
    code, out, _ = verb(capsys, "--flops", "1e22")
    assert code == 0
    assert "cost" in out
    assert "Why:" in out
    code, out, _ = verb(capsys, "--flops", "5.76e23", "--law-only", "--json")
    found = json.loads(out)
    assert found["optimum"]["params"] == pytest.approx(7.2249e10, rel=1e-4)
    assert set(found) == {"optimum", "loss_interval", "law", "warnings"}


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        ([], "one budget, but none was given"),
        (["--flops", "1e21", "--usd", "5"], "--flops and --usd were given"),
        (["--flops", "0"], "--flops is 0: it must be a finite number above 0"),
        (["--usd", "-5"], "--usd is -5"),
        (["--flops", "1e40"], "between 1e10 and 1e30"),
        (["--flops", "nan"], "--flops: 'nan' is not a finite number"),
        (["--deadline-hours", "5"], "--deadline needs --chips"),
        (["--usd", "1e6", "--usd-per-hour", "1e-300"], "--usd-per-hour is 1e-300: give a number"),
        (["--usd", "1e6", "--usd-per-hour", "1e-29"], "give between 1e10 and 1e30 FLOPs"),
        (["--flops", "1e18", "--tokens", "1e300", "--law-only"], "--tokens is 1e+300: give a"),
        (
            [
                "--flops",
                "1e21",
                "--spot-discount",
                "1",
                "--inference-tokens",
                "1T",
                "--serve-chip",
                "v5p",
            ],
            "--spot-discount is 1",
        ),
        (["--flops", "1e21", "--chip", "v5x"], "'v5e' or 'v5p'"),
        (["--flops", "1e21", "--family", "lama"], "did you mean 'llama'"),
        (["--flops", "1e21", "--law", "kaplin"], "did you mean 'kaplan'"),
        (["--flops", "1e21", "--law", "no.json"], "no law file"),
        (["--flops", "1e21", "--chips", "63"], "63 chips together: choose"),
        (["--usd", "100", "--chip", "tpu7x"], "No list price of tpu7x"),
        (["--flops", "1e21", "--params", "1B", "--tokens", "1T"], "contradict each other"),
        (
            ["--flops", "1e24", "--params", "400B", "--chip", "a100", "--chips", "8"],
            "would hold it",
        ),
        (
            ["--flops", "1e19", "--chips", "4096", "--batch-tokens", "8192"],
            "is too small for the 4096",
        ),
        (["--flops", "1e11"], "No llama architecture"),
        (["--flops", "1e21", "--params", "1B", "--inference-tokens", "1e15"], "costs more than"),
        (["--flops", "1e21", "--law", "deepseek", "--inference-tokens", "1e9"], "cannot weigh"),
        (["--flops", "1e21", "--spot-discount", "1.5"], "--spot-discount is 1.5"),
        (["--usd", "1e5", "--serve-chip", "v5e"], "give --inference-tokens too"),
        (
            [
                "--usd",
                "1e5",
                "--inference-tokens",
                "1T",
                "--serve-chip",
                "v5e",
                "--decode-mfu",
                "0",
            ],
            "--decode-mfu is 0",
        ),
        (
            ["--usd", "1e5", "--inference-tokens", "1T", "--serve-chip", "tpu7x"],
            "give --serve-usd-per-hour",
        ),
    ],
)
def test_bad_input_is_one_sentence(capsys, argv, sentence):
    code, out, err = verb(capsys, *argv)
    assert code == 2
    assert sentence in err
    assert out == ""
    assert err.count("\n") == 1


@pytest.mark.slow
def test_local_machine_is_measured_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(this_machine, "SIZE", 256)
    monkeypatch.setattr(this_machine, "_jax_rates", lambda: None)
    monkeypatch.setattr(this_machine, "idle_share", lambda: 0.2)
    this_machine.measured()
    assert "Other programs use 80%" in capsys.readouterr().err
    assert not this_machine.cache_file().exists()
    monkeypatch.setattr(this_machine, "idle_share", lambda: 0.9)
    first = this_machine.measured()
    assert first.library.startswith("NumPy")
    assert first.float32 > 1e8
    assert first.bandwidth > 1e8
    monkeypatch.setattr(this_machine, "_measure", lambda cpu: pytest.fail("measured twice"))
    assert this_machine.measured() == first
    code, out, _ = verb(
        capsys, "--flops", "1e15", "--chip", "local", "--vocab-size", "512", "--json"
    )
    assert code == 0
    found = json.loads(out)
    assert found["chips"] == 1
    peak = first.float32 * this_machine.ATTAINABLE
    assert found["roofline_seconds"]["math"] * found["steps"] > 1e15 / peak * 0.98
    assert found["usd"] is None
    assert found["mesh"]["fsdp"] == 1


@pytest.mark.slow
def test_planner_starts_without_jax():
    import subprocess
    import sys

    program = (
        "import sys, llm_jax.report.plan_page, llm_jax.plan.planner, llm_jax.laws.fitting, "
        "llm_jax.laws.profiles, llm_jax.laws.lawfile, llm_jax.commands.plan, llm_jax.commands.fit; "
        "sys.exit('jax' in sys.modules or 'flax' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
