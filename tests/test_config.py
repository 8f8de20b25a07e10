"""The config survives JSON exactly, and every mistake in it is one sentence that names it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import types
import typing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import model_config, run_config

from llm_jax.config import (
    CheckpointConfig,
    ComputeConfig,
    ConfigError,
    DataConfig,
    EncoderConfig,
    EncoderDecoderConfig,
    EvalConfig,
    Llama3Rope,
    LongRope,
    ModelConfig,
    ModernEncoderConfig,
    OptimConfig,
    ParallelConfig,
    RecurrentConfig,
    RecurrentEncoderDecoderConfig,
    RunConfig,
    TransformerEncoderDecoderConfig,
    UserError,
    Word2VecConfig,
    YarnRope,
    from_dict,
    from_json,
    load,
    recipe_folders,
    to_dict,
    to_json,
)

RECIPES = sorted({path.stem for folder in recipe_folders() for path in folder.glob("*.py")})


def values(hint: Any) -> st.SearchStrategy:
    """Values of a field's type, most of them valid."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return st.sampled_from(args)
    if origin in (typing.Union, types.UnionType):
        return st.one_of(*(values(arg) for arg in args))
    if origin is tuple:
        return st.lists(values(args[0]), max_size=3).map(tuple)
    if dataclasses.is_dataclass(hint):
        return configs(hint)
    return {
        int: st.sampled_from([-1, 1, 2, 4, 8, 64, 1000, 2**40]),
        float: st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([0.0, 0.5, 1.0]),
        bool: st.booleans(),
        str: st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=5)
        | st.sampled_from(["L", "LG"]),
        types.NoneType: st.none(),
    }[hint]


SIZES: dict[str, Any] = {"vocab_size": 64, "num_layers": 2, "d_model": 32, "num_heads": 4}
SIZES |= {"d_ff": 48, "max_seq_len": 64}
MODELS: dict[Any, Any] = {
    ModelConfig: model_config(),
    EncoderConfig: EncoderConfig(**SIZES),
    ModernEncoderConfig: ModernEncoderConfig(**SIZES),
    EncoderDecoderConfig: EncoderDecoderConfig(**SIZES, num_decoder_layers=2, head_dim=8),
    RecurrentConfig: RecurrentConfig(vocab_size=64, num_layers=2, d_model=32, max_seq_len=64),
    RecurrentEncoderDecoderConfig: RecurrentEncoderDecoderConfig(
        vocab_size=64, num_layers=2, num_decoder_layers=1, d_model=32, max_seq_len=64
    ),
    TransformerEncoderDecoderConfig: TransformerEncoderDecoderConfig(**SIZES, num_decoder_layers=1),
    Word2VecConfig: Word2VecConfig(vocab_size=64, d_model=32, max_seq_len=64),
}


@st.composite
def configs(draw: st.DrawFn, cls: Any) -> Any:
    """A valid value of `cls`: drawn fields that its checks refuse keep their defaults."""
    hints = {name: hint for name, hint in typing.get_type_hints(cls).items() if name != "kind"}
    if cls is RunConfig:
        config: Any = run_config()
    elif cls in MODELS:
        config = MODELS[cls]
    else:
        missing = dataclasses.MISSING
        needed = [f.name for f in dataclasses.fields(cls) if f.default is missing]
        config = cls(**{name: draw(values(hints[name])) for name in needed})
    for name, hint in hints.items():
        with contextlib.suppress(ConfigError):
            config = dataclasses.replace(config, **{name: draw(values(hint))})
    return config


@settings(max_examples=50, deadline=None)
@given(config=configs(RunConfig))
def test_json_round_trip(config: RunConfig) -> None:
    text = to_json(config)
    back = from_json(text, RunConfig)
    assert back == config
    assert to_json(back) == text
    assert from_dict(to_dict(config), RunConfig) == config
    assert type(back.model) is type(config.model)
    if isinstance(config.model, ModelConfig):
        assert type(back.model.rope_scaling) is type(config.model.rope_scaling)


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_loads(recipe: str, tmp_path: Path) -> None:
    config = load(recipe)
    assert config.name == recipe
    path = tmp_path / "run.json"
    path.write_text(to_json(config))
    assert load(str(path)) == config
    for folder in recipe_folders():
        assert load(str(folder / f"{recipe}.py")) == config


def test_the_recipes_that_are_promised() -> None:
    promised = {"tiny", "gpt2_124m", "llama3_8b", "llama3_70b", "qwen3_0_6b"}
    assert promised <= set(RECIPES)


def broken(**changes: Any) -> str:
    """run_config() as JSON with `a__b=value` put at a.b."""
    tree = to_dict(run_config())
    for where, value in changes.items():
        *parents, last = where.split("__")
        place = tree
        for name in parents:
            place = place[name]
        place[last] = value
    return json.dumps(tree)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"stepps": 1}, "run has no field 'stepps': did you mean 'steps'?"),
        ({"model__num_layer": 1}, "run.model has no field 'num_layer': did you mean 'num_layers'?"),
        (
            {"data__zzz": 1},
            "run.data has no field 'zzz': known: batch_size, mask_rate, mean_span, mixture, path, "
            "ramp, seed, seq_len.",
        ),
        ({"steps": "20"}, "run.steps is '20': it must be of type int."),
        ({"steps": 20.0}, "run.steps is 20.0: it must be of type int."),
        ({"steps": True}, "run.steps is True: it must be of type int."),
        ({"name": 3}, "run.name is 3: it must be of type str."),
        ({"model__qk_norm": 1}, "run.model.qk_norm is 1: it must be of type bool."),
        ({"optim__b1": "x"}, "run.optim.b1 is 'x': it must be of type float."),
        ({"optim__b1": True}, "run.optim.b1 is True: it must be of type float."),
        ({"optim__eps": math.inf}, "run.optim.eps is inf: it must be a finite number."),
        ({"optim__eps": 10**400}, "The config has in the field 'eps' a number of 401 digits: "),
        ({"model__attn_softcap": math.nan}, "run.model.attn_softcap is nan: it must be a finite"),
        ({"model": None}, "run.model is None: it must be an object with named fields."),
        ({"data": [1]}, "run.data is [1]: it must be an object with named fields."),
        (
            {"compute__remat": "some"},
            "run.compute.remat is 'some': choose one of 'none', 'dots', 'full', 'offload'.",
        ),
        ({"compute__remat": []}, "run.compute.remat is []: choose one of"),
        (
            {"compute__compiler": ["async_collectives", "sparsecore"]},
            "compute.compiler has both async_collectives and sparsecore",
        ),
        (
            {"model__rope_scaling": {"kind": "yarm"}},
            "run.model.rope_scaling.kind is 'yarm': did you mean 'yarn'?",
        ),
        ({"model__rope_scaling": {"kind": []}}, "run.model.rope_scaling.kind is []: known: "),
        (
            {"model__rope_scaling": {}},
            "run.model.rope_scaling.kind is None: known: dynamic, linear, llama3, longrope, yarn.",
        ),
        (
            {"model__rope_scaling": {"kind": "yarn", "factr": 2.0}},
            "run.model.rope_scaling has no field 'factr': did you mean 'factor'?",
        ),
        ({"model__rope_scaling": 3}, "run.model.rope_scaling is 3: it must be an object"),
    ],
)
def test_json_mistakes(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as error:
        from_json(broken(**changes), RunConfig)
    assert str(error.value).startswith(sentence)
    assert "\n" not in str(error.value)


def test_missing_keys_and_no_json() -> None:
    tree = to_dict(run_config())
    del tree["model"]["d_ff"]
    with pytest.raises(ConfigError, match=r"^run\.model\.d_ff is missing: set it\.$"):
        from_dict(tree, RunConfig)
    for text in ("{", "", "[1, 2", "\x00", "9" * 5000):
        with pytest.raises(ConfigError, match=r"not JSON|it must be an object"):
            from_json(text, RunConfig)


MODEL_MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({name: 0}, f"model.{name} is 0: it must be above 0.")
    for name in (
        "vocab_size", "num_layers", "d_model", "num_heads", "num_kv_heads", "head_dim", "d_ff",
        "max_seq_len", "norm_eps", "rope_theta",
    )
] + [
    ({"num_layers": 2**40}, f"model.num_layers is {2**40}: it must be at most 10,000."),
    ({"num_kv_heads": 3}, "model.num_heads is 8, which model.num_kv_heads = 3 does not divide"),
    ({"head_dim": 7}, "model.head_dim is 7: rotary positions need an even number."),
    ({"window_pattern": "LX"}, "model.window_pattern is 'LX': use letters L (local) and G"),
    ({"window_pattern": ""}, "model.window_pattern is '': use letters"),
    ({"sliding_window": 0}, "model.sliding_window is 0: it must be above 0."),
    ({"attn_softcap": 0.0}, "model.attn_softcap is 0.0: give a finite number above 0."),
    ({"logit_softcap": -1.0}, "model.logit_softcap is -1.0: give a finite number above 0."),
    ({"attn_scale": 0.0}, "model.attn_scale is 0.0: give a finite number above 0."),
    ({"norm_plus_one": True, "norm_weights": "none"}, "model.norm_plus_one is True, but norms"),
    ({"pre_norm": False}, "model.pre_norm is False, which requires model.post_norm = True"),
    ({"parallel_block": "one_norm", "post_norm": True}, "model.parallel_block is 'one_norm'"),
    ({"rope_pattern": "RX"}, "model.rope_pattern is 'RX': use letters R (rotary) and N (none)"),
    ({"rotary_fraction": 0.0}, "model.rotary_fraction is 0.0: it must be above 0, and at most 1."),
    ({"rotary_fraction": 0.4}, "model.rotary_fraction is 0.4, which rotates 3 of model.head_dim"),
    ({"positions": "alibi", "rope_pattern": "RN"}, "model.rope_pattern is 'RN', which requires"),
    ({"position_offset": 2}, "model.position_offset is 2, which requires model.positions"),
    ({"qk_norm_over": "width"}, "model.qk_norm_over is 'width', which requires model.qk_norm"),
    ({"qkv_clip": 0.0}, "model.qkv_clip is 0.0: give a finite number above 0."),
    ({"logit_multiplier": 0.0}, "model.logit_multiplier is 0.0: it must be above 0."),
    (
        {"rope_scaling": LongRope(long_factors=(1.0,))},
        "model.rope_scaling.long_factors has 1 numbers: give one for each of 4 rotated pairs.",
    ),
    (
        {"rope_scaling": YarnRope(query_beta=0.1), "qk_norm": True, "qk_norm_after_rope": True},
        "model.rope_scaling.query_beta is 0.1, which a norm of queries after their rotation would",
    ),
    ({"kind": "recurrent"}, "model.kind is 'recurrent', which has a config of its own"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "sentence"), MODEL_MISTAKES)
def test_model_mistakes(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as error:
        model_config(**changes)
    assert str(error.value).startswith(sentence)
    assert str(error.value).endswith(".")


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: ComputeConfig(loss_chunk=0), "compute.loss_chunk is 0: it must be above 0."),
        (lambda: DataConfig(seq_len=0), "data.seq_len is 0: it must be above 0."),
        (lambda: DataConfig(batch_size=-8), "data.batch_size is -8: it must be above 0."),
        (lambda: OptimConfig(learning_rate=0.0), "optim.learning_rate is 0.0: it must be above 0."),
        (lambda: OptimConfig(learning_rate=math.nan), "optim.learning_rate is nan: it must be"),
        (lambda: OptimConfig(learning_rate=math.inf), "optim.learning_rate is inf: it must be"),
        (lambda: OptimConfig(weight_decay=math.inf), "optim.weight_decay is inf: it must"),
        (lambda: OptimConfig(eps=0.0), "optim.eps is 0.0: it must be above 0."),
        (lambda: OptimConfig(clip_norm=0.0), "optim.clip_norm is 0.0: it must be above 0."),
        (lambda: ComputeConfig(accumulate=0), "compute.accumulate is 0: it must be above 0."),
        (lambda: OptimConfig(b1=1.5), "optim.b1 is 1.5: it must lie between 0 and 1."),
        (lambda: OptimConfig(b2=-0.1), "optim.b2 is -0.1: it must lie between 0 and 1."),
        (lambda: OptimConfig(decay_fraction=2.0), "optim.decay_fraction is 2.0: it must lie"),
        (lambda: OptimConfig(final_fraction=2.0), "optim.final_fraction is 2.0: it must lie"),
        (lambda: OptimConfig(warmup_steps=-1), "optim.warmup_steps is -1: it must not be negative"),
        (lambda: OptimConfig(weight_decay=-1.0), "optim.weight_decay is -1.0: it must not be"),
        (lambda: OptimConfig(z_loss=-1.0), "optim.z_loss is -1.0: it must not be negative."),
        (lambda: ParallelConfig(data=0), "parallel.data is 0: give a number above 0, or -1"),
        (lambda: ParallelConfig(fsdp=0), "parallel.fsdp is 0: it must be above 0."),
        (lambda: ParallelConfig(tensor=-1), "parallel.tensor is -1: it must be above 0."),
        (lambda: CheckpointConfig(every=0), "checkpoint.every is 0: it must be above 0."),
        (lambda: CheckpointConfig(keep_last=0), "checkpoint.keep_last is 0: it must be above 0."),
        (lambda: CheckpointConfig(keep_every=0), "checkpoint.keep_every is 0: it must be above 0."),
        (
            lambda: CheckpointConfig(every=20, keep_every=30),
            "checkpoint.keep_every is 30, which is not a multiple of checkpoint.every = 20",
        ),
        (lambda: EvalConfig(every=0), "eval.every is 0: it must be above 0."),
        (lambda: EvalConfig(batches=0), "eval.batches is 0: it must be above 0."),
        (lambda: run_config(steps=0), "run.steps is 0: it must be above 0."),
        (lambda: run_config(log_every=0), "run.log_every is 0: it must be above 0."),
        (lambda: run_config(name=""), "run.name is empty: give the run a name."),
        (
            lambda: run_config(data=DataConfig(seq_len=65)),
            "data.seq_len is 65, longer than model.max_seq_len = 64: shorten one",
        ),
        (
            lambda: run_config(compute=ComputeConfig(accumulate=3)),
            "data.batch_size is 8, which compute.accumulate = 3 does not divide",
        ),
        (
            lambda: run_config(optim=OptimConfig(warmup_steps=21)),
            "optim.warmup_steps is 21, more than the 20 steps of the run: lower it.",
        ),
        (lambda: Llama3Rope(factor=0.0), "model.rope_scaling.factor is 0.0: it must be"),
        (lambda: YarnRope(factor=0.5), "model.rope_scaling.factor is 0.5: it must be"),
        (lambda: YarnRope(original_max_seq_len=0), "model.rope_scaling.original_max_seq_len is 0"),
        (
            lambda: Llama3Rope(low_freq_factor=4.0),
            "model.rope_scaling.high_freq_factor is 4.0: it must be above low_freq_factor = 4.0.",
        ),
        (
            lambda: YarnRope(beta_slow=32.0),
            "model.rope_scaling.beta_fast is 32.0: it must be above beta_slow = 32.0.",
        ),
    ],
)
def test_other_mistakes(make: Any, sentence: str) -> None:
    with pytest.raises(ConfigError) as error:
        make()
    assert str(error.value).startswith(sentence)
    assert "\n" not in str(error.value)
    assert error.value.exit_code == 78


def test_nothing_can_be_changed_afterwards() -> None:
    config = run_config()
    for part in (config, config.model, config.optim):
        with pytest.raises(dataclasses.FrozenInstanceError):
            part.steps = 1  # type: ignore[misc, union-attr]


def test_windows_of_layers() -> None:
    assert model_config().windows == (None, None)
    assert model_config(sliding_window=4).windows == (4, 4)
    model = model_config(sliding_window=4, window_pattern="LLG", num_layers=5)
    assert model.windows == (4, 4, None, 4, 4)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.json", None, "There is no config file "),
        ("a.py", None, "There is no recipe file "),
        ("a.json", b"\xff\xfe", "a.json is not UTF-8 (byte 0)"),
        ("a.py", b"x = 1\n", "has no function config() -> RunConfig: add it."),
        ("a.py", b"def config():\n    return 3\n", "did not return a RunConfig."),
        ("a.py", b"def config(:\n", "could not be run (SyntaxError"),
        (
            "a.py",
            b"from llm_jax.config import EvalConfig\ndef config():\n    return EvalConfig(lr=1)\n",
            "could not be run (TypeError: EvalConfig.__init__() got an unexpected keyword argument",
        ),
    ],
)
def test_references_that_do_not_load(
    name: str, content: bytes | None, sentence: str, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError) as error:
        load(str(tmp_path / name))
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_the_folder_of_a_run_is_a_reference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = dataclasses.replace(load("tiny"), out=str(tmp_path / "trained"))
    folder = tmp_path / "trained"
    folder.mkdir()
    (folder / "run.json").write_text(to_json(config), encoding="utf-8")
    assert load(str(folder)) == config
    moved = folder.rename(tmp_path / "moved")
    assert load(str(moved)) == dataclasses.replace(config, out=str(moved))
    # A recipe's name is always the recipe; ./ names the folder.
    moved.rename(tmp_path / "tiny")
    monkeypatch.chdir(tmp_path)
    assert load("tiny").out != "tiny"
    assert load("./tiny").out == "./tiny"
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"empty/run\.json"):
        load("empty")
    with pytest.raises(ConfigError, match="no folder 'runs/nowhere'"):
        load("runs/nowhere")


def test_warm_up_that_is_not_given_follows_the_steps() -> None:
    config = dataclasses.replace(load("tiny"), optim=OptimConfig(), steps=5000)
    assert config.optim.warmup(config.steps) == 100
    steps = {1: 0, 10: 1, 200: 20, 1000: 100, 10**6: 100}
    assert {n: config.optim.warmup(n) for n in steps} == steps
    assert dataclasses.replace(config, steps=1).steps == 1
    assert OptimConfig(warmup_steps=7).warmup(10**6) == 7
    with pytest.raises(ConfigError, match=r"optim\.warmup_steps is 30, more than the 20 steps"):
        dataclasses.replace(config, steps=20, optim=OptimConfig(warmup_steps=30))
    with pytest.raises(ConfigError, match=r"optim\.warmup_steps is -1"):
        OptimConfig(warmup_steps=-1)


def test_a_recipe_that_is_not_there() -> None:
    with pytest.raises(UserError, match=r"no recipe 'tinny': did you mean 'tiny'\?"):
        load("tinny")
