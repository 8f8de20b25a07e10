"""`llm-jax embed`: vectors of words and texts, on a real run and its export."""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np
import pytest
import tiny
from verb_calls import call, call_json

from llm_jax.config import DataConfig, LongRope
from llm_jax.convert.hf_import import write_run
from llm_jax.data.dataset import TokenDataset
from llm_jax.language_model import load_model


@pytest.fixture(scope="module")
def run_folder(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = TokenDataset.open(tiny_dataset).tokenizer
    # The vocabulary is padded, as the hardware likes it.
    model = tiny.model_config(
        vocab_size=tokenizer.vocab_size + 8,
        max_seq_len=96,
        logit_multiplier=0.5,
        rope_scaling=LongRope(original_max_seq_len=16, long_factors=(1.0, 9.0, 9.0, 9.0)),
    )
    folder = tmp_path_factory.mktemp("embed") / "run"
    folder.mkdir()
    config = tiny.run_config(
        out=folder, model=model, data=DataConfig(path=str(tiny_dataset), seq_len=64, batch_size=8)
    )
    write_run(folder, config, jax.device_get(tiny.parameters(model, size=0.1)), tokenizer)
    return folder


def test_words_are_means_of_rows(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "vectors.npy"
    made = call_json(capsys, "embed", run_folder, "return", "吾輩は", "--out", out)
    model = load_model(run_folder)
    table = np.asarray(model.params["embed"]["tokens"])
    expected = np.stack(
        [table[model.tokenizer.encode(text)].mean(axis=0) for text in ("return", "吾輩は")]
    )
    np.testing.assert_allclose(np.load(out), expected, rtol=1e-6)
    a, b = expected
    cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    assert made["cosines"][0][1] == pytest.approx(cosine, abs=1e-5)
    assert [len(near) for near in made["neighbours"]] == [5, 5]
    # A neighbour's cosine is that of its own row.
    piece, near = made["neighbours"][0][0]
    rows = [i for i in range(model.tokenizer.vocab_size) if model.tokenizer.decode([i]) == piece]
    found = [a @ table[i] / np.linalg.norm(a) / np.linalg.norm(table[i]) for i in rows]
    assert max(found) == pytest.approx(near, abs=1e-5)


def test_an_analogy_leaves_out_what_was_given(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = call_json(capsys, "embed", run_folder, "a", "b", "c", "--analogy", "--neighbours", 3)
    assert len(made["analogy"]) == 3
    assert not {"a", "b", "c"} & {piece for piece, _ in made["analogy"]}
    values = [value for _, value in made["analogy"]]
    assert values == sorted(values, reverse=True)


@pytest.mark.slow
def test_hidden_states_do_not_depend_on_padding(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "texts.txt").write_text("def main():\nimport os\n", encoding="utf-8")
    out = tmp_path / "vectors.npy"
    words = ("--lines", tmp_path / "texts.txt", "--hidden", "--out", out)
    assert call_json(capsys, "embed", run_folder, *words)["width"] == np.load(out).shape[1]
    from llm_jax.config import ComputeConfig
    from llm_jax.models.protocol import Context, model_of

    model = load_model(run_folder)
    ids = np.array([model.tokenizer.encode("def main():")], np.int32)
    batch = {
        "inputs": ids,
        "segments": np.ones_like(ids),
        "positions": np.arange(ids.shape[1], dtype=np.int32)[None],
    }
    compute = ComputeConfig(dtype="float32", remat="none", attention="reference")
    hidden = model_of(model.config).forward(model.params, batch, model.config, Context(compute))
    assert ids.shape[1] <= 16  # so short a text has no long factors, whatever pads it
    expected = np.asarray(hidden.x_BTD)[0].mean(axis=0) / model.config.logit_multiplier
    np.testing.assert_allclose(np.load(out)[0], expected, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((), "needs texts"),
        (("a", ""), "Text 2 of 2 is empty"),
        (("a", "b", "--analogy"), "--analogy takes three texts"),
        (("a", "--hidden", "--neighbours", "2"), "--neighbours compares rows"),
        (("a", "--out", "x.txt"), "must end in .npy"),
        (("a" * 5000, "--hidden"), "the model takes"),
    ],
)
def test_a_mistake_is_one_sentence(
    run_folder: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], sentence: str
) -> None:
    code, _, err = call(capsys, "embed", run_folder, *words)
    assert code == 2
    assert sentence in err
    assert err.count("\n") == 1
