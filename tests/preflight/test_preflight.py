"""The real TPU compiler, without a TPU: what fits, what is exchanged, and what is said if not.

Collectives are compared with collectives.json, by version of JAX. After a change that is meant to
alter them: UPDATE_GOLDENS=1 python -m pytest tests/preflight
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from tiny import model_config, run_config

from llm_jax.cli import main
from llm_jax.config import (
    ComputeConfig,
    ConfigError,
    DataConfig,
    MoeConfig,
    ParallelConfig,
    RunConfig,
    from_json,
    load,
    to_json,
)
from llm_jax.parallel.mesh import make_mesh
from llm_jax.preflight import cache, measure
from llm_jax.preflight.hlo import Program
from llm_jax.preflight.remedy import remedies
from llm_jax.preflight.search import candidates
from llm_jax.preflight.table import lines
from llm_jax.preflight.topology import devices, find
from llm_jax.train.step import compile_train_step

GOLDEN = Path(__file__).with_name("collectives.json")
compiles = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="needs the TPU compiler: pip install libtpu"
)
LAYOUTS = {
    "fsdp8": ParallelConfig(data=1, fsdp=8),
    "fsdp4_tensor2": ParallelConfig(data=1, fsdp=4, tensor=2),
    "data2_fsdp4": ParallelConfig(data=2, fsdp=4),
}
"""Layouts of a dense model whose parameters are split by fsdp and tensor alone."""
EXPERTS = MoeConfig(experts=8, top_k=2, d_ff=512, balance_loss=0.01)
OTHERS: dict[str, tuple[dict[str, Any], int]] = {
    "fsdp4_tensor2_one_sequence": (
        {
            "parallel": ParallelConfig(data=1, fsdp=4, tensor=2),
            "data": DataConfig(seq_len=256, batch_size=4),
        },
        1,
    ),
    "fsdp4_context2_ring": ({"parallel": ParallelConfig(data=1, fsdp=4, context=2)}, 1),
    "fsdp4_context2_gather": (
        {"parallel": ParallelConfig(data=1, fsdp=4, context=2, context_kind="gather")},
        1,
    ),
    "fsdp4_pipeline2": ({"parallel": ParallelConfig(data=1, fsdp=4, pipeline=2)}, 1),
    "replica2_fsdp4": ({"parallel": ParallelConfig(data=1, replica=2, fsdp=4)}, 2),
    "moe_fsdp8": ({"moe": EXPERTS, "parallel": ParallelConfig(data=1, fsdp=8)}, 1),
    "moe_fsdp4_tensor2": (
        {"moe": EXPERTS, "parallel": ParallelConfig(data=1, fsdp=4, tensor=2)},
        1,
    ),
    "moe_fsdp2_expert4": (
        {"moe": EXPERTS, "parallel": ParallelConfig(data=1, fsdp=2, expert=4)},
        1,
    ),
    "moe_capacity_fsdp2_expert4": (
        {
            "moe": dataclasses.replace(EXPERTS, capacity_factor=1.25),
            "parallel": ParallelConfig(data=1, fsdp=2, expert=4),
        },
        1,
    ),
}
"""Name → (what differs from `small`, slices of v5e-8 or, of two, v5e-4)."""


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def small(parallel: ParallelConfig = ParallelConfig(), **changes: Any) -> RunConfig:  # noqa: B008
    """A model whose shards fill the TPU's registers: below 128 columns it keeps wholes."""
    fields: dict[str, Any] = {
        "model": model_config(
            vocab_size=1024, d_model=512, num_heads=4, num_kv_heads=2, head_dim=128, d_ff=1024,
            max_seq_len=8192, moe=changes.pop("moe", None),
        ),
        "compute": ComputeConfig(),
        "data": DataConfig(seq_len=256, batch_size=16),
        "parallel": parallel,
    }  # fmt: skip
    return run_config(**(fields | changes))


def verb(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, Any, str]:
    """Exit code, stdout as JSON (or None) and stderr of `llm-jax preflight`."""
    with pytest.raises(SystemExit) as end:
        main(["preflight", *words, "--json"])
    out, err = capsys.readouterr()
    return int(end.value.code or 0), json.loads(out) if out else None, err


@pytest.mark.slow
@compiles
@pytest.mark.parametrize(
    "layout",
    [
        pytest.param(name, marks=() if name == "fsdp4_tensor2" else pytest.mark.slow)
        for name in LAYOUTS
    ],
)
def test_collectives_of_a_layout(layout: str) -> None:
    found = measure.measure(small(LAYOUTS[layout]), find("v5e-8"))
    assert found["fits"]
    assert found["attention"] == "splash"
    parts = found["hbm_bytes"]
    assert parts["peak"] == (
        parts["arguments"] + parts["output"] - parts["aliased"] + parts["temp"]
        + parts["generated_code"]
    )  # fmt: skip
    # Float32 parameters and two moments, split over all of fsdp and tensor, but not over data.
    config = small()
    size = 3 * 4 * sum(
        leaf.size for leaf in jax.tree.leaves(measure.abstract_state(
            config, make_mesh(ParallelConfig(), jax.devices()[:1]))["params"])
    )  # fmt: skip
    shards = LAYOUTS[layout].fsdp * LAYOUTS[layout].tensor
    assert parts["arguments"] == pytest.approx(size / shards, rel=0.02)
    check_golden(layout, found["collectives_by_axis"])
    moved = {(one["kind"], *one["axes"]): one["bytes"] for one in found["collectives_by_axis"]}
    # FSDP gathers the weights for both passes and reduce-scatters gradients; beside norms and sums
    # the compiler all-reduces whole only what is small.
    assert moved["all-gather", "fsdp"] > 1.5 * size / 12 * 2 / LAYOUTS[layout].tensor
    assert moved.get(("all-reduce", "fsdp"), 0) < moved["reduce-scatter", "fsdp"] / 2


@compiles
@pytest.mark.slow
def test_what_the_compiler_is_asked_for_is_in_its_program() -> None:
    model = dataclasses.replace(small().model, d_model=1024, d_ff=2048, num_layers=2)
    config = small(LAYOUTS["fsdp8"], model=model, data=DataConfig(seq_len=1024, batch_size=16))
    mesh = make_mesh(config.parallel, devices(find("v5p-16")))

    def program(*purposes: str) -> tuple[str, float]:
        compute = dataclasses.replace(config.compute, compiler=purposes)
        asking = dataclasses.replace(config, compute=compute)
        text = compile_train_step(asking, mesh, np.ones(1024, np.int32)).as_text()
        return text, Program(text).estimated_cycles()

    (plain, cycles), (fused, _), (_, other_cycles), (asked, _) = (
        program(),
        program("async_collectives"),
        program("scoped_vmem"),
        program("collective_matmul", "sparsecore"),
    )
    for text, mark in (
        (fused, "async_collective_fusion"),
        (asked, "collective-permute"),
        (asked, "sparse_core"),
    ):
        assert text.count(mark) > plain.count(mark)
    assert other_cycles != cycles


@compiles
def test_a_unit_that_the_chip_lacks_is_not_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["preflight", "tiny", "--topology", "v5e-4", "--parallel.fsdp", "4",
              "--compute.compiler", "sparsecore"])  # fmt: skip
    assert end.value.code == 78
    assert "a TPU v5e has no SparseCore: leave it out." in capsys.readouterr().err


@compiles
@pytest.mark.slow
@pytest.mark.parametrize("layout", OTHERS)
def test_collectives_of_other_layouts(layout: str) -> None:
    changes, slices = OTHERS[layout]
    config = small(**changes)
    found = measure.measure(config, find("v5e-8" if slices == 1 else "v5e-4", slices))
    assert found["fits"]
    check_golden(layout, found["collectives_by_axis"])
    moved = {(one["kind"], *one["axes"]): one["bytes"] for one in found["collectives_by_axis"]}
    p = config.parallel
    if p.replica > 1:  # gradients meet over DCN
        assert any("replica" in axes for kind, *axes in moved if kind == "all-reduce")
    if p.context > 1:  # keys and values
        kind = "collective-permute" if p.context_kind == "ring" else "all-gather"
        assert moved[kind, "context"] > 0
    if p.pipeline > 1:
        assert moved["collective-permute", "pipeline"] > 0
    if p.expert > 1:  # tokens come to their experts, and what they make goes back
        kind = "all-to-all" if config.model.moe.capacity_factor else "all-gather"
        assert moved[kind, "expert"] > 0
    # The activations of all devices never come together (docs/log.md, 2026-11-24).
    assert ("all-gather", "fsdp", "tensor") not in moved


def check_golden(layout: str, found: list[dict[str, Any]]) -> None:
    rows = sorted(
        f"{one['kind']} over {' x '.join(one['axes'])}: {one['count']} times, {one['bytes']} bytes"
        for one in found
    )
    version = ".".join(jax.__version__.split(".")[:2])
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    if "UPDATE_GOLDENS" in os.environ:
        golden.setdefault(version, {})[layout] = rows
        GOLDEN.write_text(json.dumps(golden, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    elif layout not in golden.get(version, {}):
        pytest.skip(f"the step compiles, but collectives.json has no {layout} of JAX {version}")
    assert rows == golden[version][layout]


@compiles
@pytest.mark.slow
def test_a_step_that_does_not_fit_is_explained_and_fixed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = small(
        data=DataConfig(seq_len=8192, batch_size=256), compute=ComputeConfig(remat="dots")
    )
    run, fixed = tmp_path / "run.json", tmp_path / "fixed.json"
    run.write_text(to_json(config), encoding="utf-8")
    code, found, _ = verb(capsys, str(run), "--topology", "v5e-4")
    assert (code, found["fits"]) == (1, False)
    assert found["hbm_bytes"]["peak"] > found["hbm_limit"]
    assert "DOES NOT FIT" in lines(found)[2]
    flags = ("--topology", "v5e-4", "--fix", "--write", str(fixed))
    code, found, _ = verb(capsys, str(run), *flags)
    assert (code, found["fits"]) == (0, True)
    assert [one["fits"] for one in found["tried"]] == [False] * (len(found["tried"]) - 1) + [True]
    chosen = from_json(fixed.read_text(encoding="utf-8"), RunConfig)
    assert chosen.model == config.model
    assert chosen.data == config.data
    assert chosen.compute.remat == "full"
    code, again, _ = verb(capsys, str(fixed), "--topology", "v5e-4")
    assert (code, again["cached"]) == (0, True)
    assert again["hbm_bytes"] == found["hbm_bytes"]


@compiles
@pytest.mark.slow
def test_search_writes_the_fastest_that_fits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, best = tmp_path / "run.json", tmp_path / "best.json"
    run.write_text(to_json(small()), encoding="utf-8")
    code, found, _ = verb(capsys, str(run), "--topology", "v5e-8", "--search", "--write", str(best))
    assert code == 0
    assert len(found["tried"]) == 3 <= found["ranked"]
    chosen = from_json(best.read_text(encoding="utf-8"), RunConfig)
    seconds = [sum(one["step_seconds"]) for one in found["tried"] if one["fits"]]
    assert sum(found["step_seconds"]) == min(seconds)
    assert chosen.parallel.fsdp == found["mesh"].get("fsdp", 1)


@compiles
@pytest.mark.slow
def test_a_plan_is_verified(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["plan", "--flops", "1e17", "--chip", "v5e", "--chips", "4", "--verify", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert end.value.code == 0
    assert found["verified"]["fits"]
    assert found["verified"]["chips"] == 4
    assert found["verified"]["planned_bytes"]["total"] == found["memory_bytes"]["total"]


def test_a_plan_for_gpus_cannot_be_verified(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["plan", "--flops", "1e20", "--chip", "h100", "--verify", "--json"])
    assert end.value.code == 2
    assert "--verify compiles for TPUs, not for h100" in capsys.readouterr().err


class OutOfMemory:
    """A compiler that has no room, without the minutes."""

    def __init__(self, message: str) -> None:
        self.message = message

    def __call__(self, *_: Any) -> None:
        raise jax.errors.JaxRuntimeError(self.message)


@compiles
@pytest.mark.parametrize(
    ("message", "peak"),
    [
        ("RESOURCE_EXHAUSTED: Used 64.25G of 15.75G hbm. Exceeded hbm", 64.25 * 2**30),
        (
            "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO "
            "temporaries (60.5G) exceeds available HBM (15.75G).",
            60.5 * 2**30,
        ),
    ],
)
def test_out_of_memory_in_the_users_terms(
    message: str, peak: float, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(measure, "compile_train_step", OutOfMemory(message))
    code, found, err = verb(
        capsys, "llama3_8b", "--topology", "v5e-64", "--parallel.fsdp", "64",
        "--parallel.tensor", "1", "--data.batch-size", "256",
    )  # fmt: skip
    assert code == 1
    assert "Compiling llama3_8b for v5litepod-64 takes about 2 minutes." in err
    state = found["hbm_bytes"].get("arguments", 0)
    assert found["hbm_bytes"]["peak"] == int(peak) + state
    assert state in (0, pytest.approx(12 * 8.03e9 / 64, rel=0.01))
    said = "\n".join(lines(found | {"cached": False}))
    assert "DOES NOT FIT: peak" in said
    assert "most is activations" in said
    assert "--compute.remat full" in said


@compiles
@pytest.mark.slow
def test_offload_leaves_the_inputs_of_the_blocks_on_the_host() -> None:
    """16 layers x 4,096 tokens x 512 bfloat16 a device are 64 MiB."""
    model = dataclasses.replace(small().model, num_layers=16)
    temp, host = {}, {}
    for remat in ("full", "offload"):
        config = small(
            ParallelConfig(data=1, fsdp=4),
            model=model,
            compute=ComputeConfig(remat=remat),
            data=DataConfig(seq_len=4096, batch_size=4),
        )
        mesh = make_mesh(config.parallel, devices(find("v5e-4")))
        step: Any = compile_train_step(config, mesh, np.ones(model.vocab_size, np.int32))
        stats = step.memory_analysis()
        temp[remat], host[remat] = stats.temp_size_in_bytes, stats.host_temp_size_in_bytes
    assert host == {"full": 0, "offload": 2**26}
    # What is left then is the update's peak, to which the inputs do not add.
    assert temp["full"] - temp["offload"] > 2**25


def test_remedies_of_a_run_that_offloads_recompute_no_more() -> None:
    config = dataclasses.replace(load("llama3_8b"), compute=ComputeConfig(remat="offload"))
    words, _ = next(remedies(config, find("v5p-128")))
    assert words == "compute.accumulate 2"


def test_remedies_come_in_the_order_of_their_cost() -> None:
    config = dataclasses.replace(
        load("llama3_8b"),
        compute=ComputeConfig(remat="none"),
        parallel=ParallelConfig(data=2, fsdp=32),
    )
    made = list(remedies(config, find("v5p-128")))
    assert [words for words, _ in made][:3] == [
        "compute.remat dots",
        "compute.remat full",
        "compute.remat full, compute.accumulate 2",
    ]
    assert made[3][0].endswith("parallel.data 1 and parallel.fsdp 64")
    assert made[-1][0].endswith("parallel.fsdp 8 and parallel.tensor 8")
    for _, one in made:
        p = one.parallel
        assert p.data * p.fsdp * p.tensor == 64
        assert (one.model, one.data) == (config.model, config.data)


def test_candidates_split_the_machine_and_keep_the_batch() -> None:
    config, machine = load("llama3_8b"), find("v5p-512", 2)
    ranked = candidates(config, machine)
    seconds = [time for time, _ in ranked]
    assert seconds == sorted(seconds)
    assert len(ranked) > 3
    for _, one in ranked:
        p = one.parallel
        assert p.replica == 2
        assert p.replica * p.data * p.fsdp * p.tensor == 512
        assert one.data == config.data
        assert one.data.batch_size % (p.replica * p.data * p.fsdp * one.compute.accumulate) == 0


def test_candidates_count_the_state_in_its_own_dtypes() -> None:
    """Llama 3 8B on v5e-16: 4 × 4 bytes a parameter leave no room for what 4 × 2 do."""
    config, machine = load("llama3_8b"), find("v5e-16")
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, batch_size=16))
    half = dict.fromkeys(
        ("param_dtype", "grad_dtype", "moment_dtype", "second_moment_dtype"), "bfloat16"
    )
    halved = dataclasses.replace(config, optim=dataclasses.replace(config.optim, **half))

    def meshes(config: RunConfig) -> set[tuple[int, int, str]]:
        found = [one for _, one in candidates(config, machine)]
        return {(one.parallel.fsdp, one.parallel.tensor, one.compute.remat) for one in found}

    assert meshes(config) < meshes(halved)


def test_candidates_leave_nothing_of_a_pipeline_and_obey_a_ramp() -> None:
    config, machine = load("llama3_8b"), find("v5p-32")
    parallel = dataclasses.replace(
        config.parallel, fsdp=8, tensor=1, pipeline=2, pieces=4, rounds=2
    )
    data = dataclasses.replace(config.data, batch_size=16, ramp="4:10")
    compute = dataclasses.replace(config.compute, accumulate=4)
    ranked = candidates(
        dataclasses.replace(config, parallel=parallel, data=data, compute=compute), machine
    )
    assert ranked
    for _, one in ranked:
        p = one.parallel
        assert (p.pipeline, p.pieces, p.rounds) == (1, None, 1)
        assert 4 % (16 // one.compute.accumulate) == 0


def test_results_are_kept_by_what_decides_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[RunConfig] = []

    def count(config: RunConfig, machine: Any) -> dict[str, Any]:
        calls.append(config)
        return {"fits": True}

    monkeypatch.setattr(cache, "measure", count)
    monkeypatch.setattr(cache, "require_compiler", lambda: None)
    monkeypatch.setattr(cache.importlib.metadata, "version", lambda name: "1")
    config, machine = small(), find("v5e-8")
    assert cache.measured(config, machine) == {"fits": True, "cached": False}
    renamed = dataclasses.replace(config, name="other", out="elsewhere", steps=config.steps)
    assert cache.measured(renamed, machine) == {"fits": True, "cached": True, "name": "other"}
    longer = dataclasses.replace(config, data=DataConfig(seq_len=512, batch_size=16))
    for other, where in ((longer, machine), (config, find("v5e-16"))):
        assert not cache.measured(other, where)["cached"]
    assert len(calls) == 3
    monkeypatch.setenv("LIBTPU_INIT_ARGS", "--a_flag_of_the_compiler")
    assert not cache.measured(config, machine)["cached"]
    for file in cache.folder().iterdir():
        file.write_text("[")
    assert not cache.measured(config, machine)["cached"]
    assert cache.measured(config, machine)["cached"]


def test_code_of_every_package_that_makes_the_program_is_hashed() -> None:
    program = (
        "import sys, llm_jax.preflight.measure\n"
        "print(*{name.split('.')[1] for name in sys.modules if name.startswith('llm_jax.')})"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert set(done.stdout.split()) == set(cache.SOURCES)


def test_code_is_hashed_at_every_level(tmp_path: Path) -> None:
    deep = tmp_path / "model" / "attention" / "kernels"
    deep.mkdir(parents=True)
    seen = set()
    for path in (tmp_path / "model" / "a.py", deep.parent / "b.py", deep / "c.py"):
        for text in ("x = 1", "x = 2"):
            path.write_text(text)
            seen.add(cache.code(["model"], tmp_path))
    (deep / "c.py").rename(deep / "d.py")
    seen.add(cache.code(["model"], tmp_path))
    assert len(seen) == 7
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "e.py").touch()
    assert cache.code(["model"], tmp_path) in seen


def test_a_result_that_cannot_be_kept_is_still_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cache, "measure", lambda config, machine: {"fits": True})
    monkeypatch.setattr(cache, "require_compiler", lambda: None)
    monkeypatch.setattr(cache, "key", lambda config, machine: "key")
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert cache.measured(small(), find("v5e-8")) == {"fits": True, "cached": False}
    assert "the result is not kept" in capsys.readouterr().err


@compiles
@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "needs --topology: a TPU slice such as v5p-128"),
        (["--topology", "v5e-8", "--write", "x.json"], "--write writes the config that --fix"),
        (["--topology", "v5e-7"], "There is no TPU slice 'v5e-7'"),
        (["--topology", "v5e-8", "--parallel.fsdp", "3"], "but there are 8 devices"),
        (
            ["--topology", "v5e-8", "--parallel.tensor", "8"],
            "model.num_heads is 4, which mesh axis 'tensor' of size 8 does not divide",
        ),
        (["--topology", "v5e-8", "--slices", "2", "--parallel.fsdp", "16"], "parallel.replica 2"),
        (
            ["--topology", "v5e-8", "--slices", "2", "--parallel.fsdp", "3"],
            "make the product 16, with parallel.replica 2 for the 2 slices",
        ),
    ],
)
def test_mistakes_are_one_sentence(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, found, err = verb(capsys, "tiny", *words)
    assert code in (UserExit, ConfigError.exit_code)
    assert found is None
    assert sentence in err
    assert err.count("\n") == 1


UserExit = 2
