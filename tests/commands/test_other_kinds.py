"""The verbs on runs of encoders and encoder-decoders: what works, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from verb_calls import call

from llm_jax.commands.generate_targets import source_ids
from llm_jax.config import (
    CheckpointConfig,
    DataConfig,
    EncoderConfig,
    EncoderDecoderConfig,
    EvalConfig,
    RunConfig,
    to_json,
)
from llm_jax.convert.hf_import import write_run
from llm_jax.data.dataset import TokenDataset
from llm_jax.data.tokenizers.sentinels import SENTINEL, sentinel_ids
from llm_jax.train.loop import train
from llm_jax.train.metrics import read_metrics

T5 = EncoderDecoderConfig(
    vocab_size=tiny.VOCAB + 128, num_layers=1, num_decoder_layers=1, d_model=32, num_heads=2,
    head_dim=16, d_ff=48, max_seq_len=64,
)  # fmt: skip
BERT = EncoderConfig(
    vocab_size=tiny.VOCAB, num_layers=1, d_model=32, num_heads=2, d_ff=48, max_seq_len=64
)


def config_of(out: Path, dataset: Path, **changes: Any) -> RunConfig:
    fields: dict[str, Any] = {
        "steps": 4,
        "objective": "spans",
        "model": T5,
        "data": DataConfig(path=str(dataset), seq_len=40, batch_size=8),
        "checkpoint": CheckpointConfig(every=2),
        "eval": EvalConfig(every=4, batches=2),
    }
    return tiny.run_config(out, dataset, **(fields | changes))


@pytest.fixture(scope="module")
def t5(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four steps."""
    config = config_of(tmp_path_factory.mktemp("t5") / "run", tiny_dataset)
    train(config)
    return Path(config.out)


@pytest.fixture(scope="module")
def bert(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = config_of(
        tmp_path_factory.mktemp("bert") / "run", tiny_dataset, objective="masked", model=BERT
    )
    folder = Path(config.out)
    folder.mkdir()
    write_run(folder, config, tiny.parameters(BERT), TokenDataset.open(tiny_dataset).tokenizer)
    return folder


@pytest.mark.slow
def test_a_run_of_spans_begins_near_chance(t5: Path) -> None:
    records = list(read_metrics(t5 / "metrics.jsonl"))
    trained = [record["loss"] for record in records if record["split"] == "train"]
    assert len(trained) == 4
    assert trained == pytest.approx([np.log(T5.vocab_size)] * 4, abs=0.6)
    (held_out,) = (record for record in records if record["split"] == "validation")
    assert held_out["step"] == 4


@pytest.mark.slow
def test_a_target_of_each_source(t5: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both = ("--prompt", "import json", "--prompt", "def main(", "--max-tokens", 6, "--json")
    code, out, err = call(capsys, "generate", t5, *both, "--temperature", 0)
    assert code == 0, err
    made = json.loads(out)["samples"]
    assert [one["prompt"] for one in made] == ["import json", "def main("]
    for one in made:
        assert 0 < len(one["ids"]) <= 6
        named = [SENTINEL.format(tiny.VOCAB + 99 - i) for i in one["ids"] if i >= tiny.VOCAB]
        assert all(name in one["text"] for name in named)
    code, out, err = call(
        capsys, "generate", t5, "--prompt", "import json", "--max-tokens", 6, "--beams", 3
    )
    assert code == 0, err
    code, _, err = call(capsys, "generate", t5, "--prompt", "import json")
    assert code == 2
    assert "give --temperature 0, or --beams N" in err
    code, _, err = call(capsys, "generate", t5, "--temperature", 0, "--stop", "a", "--log-probs")
    assert code == 2
    assert "made without --stop and --log-probs" in err


@pytest.mark.slow
def test_sentinels_in_a_prompt(tiny_dataset: Path) -> None:
    tokenizer = TokenDataset.open(tiny_dataset).tokenizer
    sentinels = sentinel_ids(tokenizer, T5)
    ids = source_ids("import <extra_id_1> as", tokenizer, sentinels)
    wanted = [*tokenizer.encode("import "), sentinels[1], *tokenizer.encode(" as")]
    assert ids == [*wanted, tokenizer.eos_id]
    plain = source_ids("a<extra_id_999>", tokenizer, sentinels)
    assert plain == [*tokenizer.encode("a"), *tokenizer.encode("<extra_id_999>"), tokenizer.eos_id]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("verb", "words"),
    [("eval", "Next-token evaluation is for decoders"), ("generate", "generate is for decoders")],
)
def test_what_is_for_decoders_says_so(
    verb: str, words: str, bert: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = call(capsys, verb, bert)
    assert code == 2
    assert words in err
    assert "model.kind is 'encoder'" in err


@pytest.mark.slow
def test_a_config_of_another_kind_has_its_own_flags(
    bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_of(tmp_path / "run", tmp_path, objective="masked", model=BERT)
    (tmp_path / "run.json").write_text(to_json(config))
    flags = ("train", tmp_path / "run.json", "--model.types", 3, "--data.path", tmp_path / "none")
    code, _, err = call(capsys, *flags)
    assert "none" in err
    assert code != 0
    code, _, err = call(capsys, "train", tmp_path / "run.json", "--model.rope-theta", 3)
    assert "has no flag '--model.rope-theta'" in err
    code, _, err = call(capsys, "train", tmp_path / "run.json", "--objective", "next_token")
    assert "set objective to 'masked'" in err
