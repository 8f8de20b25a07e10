"""word2vec: frequencies as gensim has them, gradients beside torch, resume, export."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import tiny
from verb_calls import call, call_json

from llm_jax.config import (
    CheckpointConfig,
    ConfigError,
    DataConfig,
    EvalConfig,
    ParallelConfig,
    Word2VecConfig,
    from_json,
    to_json,
)
from llm_jax.convert.vectors import names_of
from llm_jax.data.batches import split_documents
from llm_jax.data.dataset import TokenDataset
from llm_jax.data.tokenizers import Tokenizer
from llm_jax.models.protocol import model_of
from llm_jax.objectives import negative_samples
from llm_jax.objectives.objective import objective_of
from llm_jax.parallel.mesh import make_mesh
from llm_jax.train.feed import to_device
from llm_jax.train.load import load_run
from llm_jax.train.loop import train
from llm_jax.train.step import gradients

SKIP = Word2VecConfig(
    vocab_size=tiny.VOCAB, d_model=16, max_seq_len=64, window=3, negatives=4, subsample=1e-2
)
CBOW = dataclasses.replace(SKIP, method="cbow")
BOTH = pytest.mark.parametrize("model", [SKIP, CBOW], ids=["skip-gram", "cbow"])


def run_of(model: Word2VecConfig, dataset: Any, out: Any = "unused", **changes: Any) -> Any:
    fields: dict[str, Any] = {
        "model": model,
        "objective": "negative_samples",
        "data": DataConfig(path=str(dataset), seq_len=32, batch_size=8),
        "optim": tiny.optim_config(learning_rate=1e-2, weight_decay=0.0),
        "checkpoint": CheckpointConfig(every=3),
        "eval": EvalConfig(every=6, batches=2),
        "steps": 6,
    }
    return tiny.run_config(out, dataset, **(fields | changes))


def batch_of(model: Word2VecConfig, text: TokenDataset, rows: Any = None) -> dict[str, np.ndarray]:
    config = run_of(model, text.path)
    packed = text.batches(seq_len=32, batch_size=8).at(0) if rows is None else rows
    prepare = objective_of(config).rows(text.tokenizer)
    return prepare(packed, np.arange(len(packed["inputs"])))


@pytest.fixture(scope="module")
def text(tiny_dataset: Path) -> TokenDataset:
    return TokenDataset.open(tiny_dataset)


@pytest.mark.slow
def test_frequencies_are_those_of_gensim(text: TokenDataset) -> None:
    """Which tokens stay, and how often each is a negative."""
    word2vec = pytest.importorskip("gensim.models").Word2Vec
    counts = negative_samples.token_counts(str(text.path))
    tokens = np.concatenate(
        text.records(
            "train", list(range(-(-text.num_tokens("train") // text.info["record_tokens"])))
        )
    )
    assert np.array_equal(counts, np.bincount(tokens, minlength=tiny.VOCAB))
    theirs = word2vec(min_count=1, sample=1e-2, negative=4, ns_exponent=0.75, vector_size=4)
    theirs.build_vocab_from_freq({str(i): int(n) for i, n in enumerate(counts) if n})
    ids = [int(name) for name in theirs.wv.index_to_key]
    stays = negative_samples.stay_probability(counts, 1e-2)[ids]
    found = [theirs.wv.get_vecattr(str(i), "sample_int") / 2**32 for i in ids]
    np.testing.assert_allclose(stays, found, atol=1e-6)
    drawn = np.diff(negative_samples.noise(counts, 0.75), prepend=0)[ids]
    np.testing.assert_allclose(
        drawn, np.diff(theirs.cum_table.astype(float), prepend=0) / (2**31 - 1), atol=1e-8
    )


def test_pairs_are_of_one_document_and_within_the_window(text: TokenDataset) -> None:
    """All tokens stay, and each is another: a pair's places follow from it."""
    model = dataclasses.replace(SKIP, subsample=0.0)
    known = np.flatnonzero(text.tokenizer.token_bytes > 0)
    tokens = np.concatenate([[tiny.BOS], known[:19], [2, tiny.BOS], known[19:30]])[None]
    rows = split_documents(tokens.astype(np.int32), tiny.MARKS)
    rows = {name: np.repeat(row, 200, axis=0) for name, row in rows.items()}
    made = batch_of(model, text, rows)
    place = {int(token): (int(i), int(i >= 19)) for i, token in enumerate(known[:30])}
    targets = made["targets"].reshape(200, 32, 6)
    distances = np.zeros(4, int)
    for centres, arounds in zip(made["inputs"], targets, strict=True):
        for centre, around in zip(centres, arounds, strict=True):
            for other in around[around >= 0]:
                (a, document), (b, same) = place[int(centre)], place[int(other)]
                assert document == same
                distances[abs(a - b)] += 1
    # A window is drawn from 1 to 3, so 2 are as far as 2 in 2/3 of them, and 3 in 1/3.
    assert distances[0] == 0
    shares = distances[1:] / np.array([18 + 9, 17 + 8, 16 + 7]) / 2 / 200
    np.testing.assert_allclose(shares, [1, 2 / 3, 1 / 3], atol=0.03)
    negatives = np.bincount(made["negatives"].ravel(), minlength=tiny.VOCAB)
    counts = np.where(
        text.tokenizer.token_bytes > 0, negative_samples.token_counts(str(text.path)), 0
    )
    wanted = np.diff(negative_samples.noise(counts, 0.75), prepend=0)
    np.testing.assert_allclose(negatives / negatives.sum(), wanted, atol=2e-3)


@BOTH
def test_gradients_are_those_of_torch(model: Word2VecConfig, text: TokenDataset) -> None:
    """The loss pair by pair, as the paper writes it, differentiated by torch."""
    torch = pytest.importorskip("torch")
    params, batch = tiny.parameters(model, size=0.5), batch_of(model, text)
    inner, outer = (
        torch.tensor(params[key]["tokens"], requires_grad=True) for key in ("embed", "context")
    )
    K, W = model.negatives, model.window
    pairs = []
    for ids, wanted, noise in zip(
        *(batch[n] for n in ("inputs", "targets", "negatives")), strict=True
    ):
        noise = noise.reshape(-1, K)
        for place in np.flatnonzero(wanted >= 0):
            given = (
                ids[place // (2 * W)]
                if model.method == "skip_gram"
                else (around := ids.reshape(-1, 2 * W)[place])[around >= 0]
            )
            pairs.append((np.atleast_1d(given), wanted[place], noise[place]))
    total = torch.zeros(())
    for given, token, noise in pairs:
        v = inner[torch.tensor(given.astype(np.int64))].mean(0)
        total = total - torch.nn.functional.logsigmoid(outer[int(token)] @ v)
        for sample in noise[noise != token]:
            total = total - torch.nn.functional.logsigmoid(-(outer[int(sample)] @ v))
    total = total / len(pairs)
    total.backward()
    config = run_of(model, text.path)
    found, metrics = jax.jit(lambda p, b: gradients(p, b, config))(params, batch)
    assert int(metrics["count"]) == len(pairs) > 100
    assert float(metrics["loss"]) == pytest.approx(total.item(), rel=1e-5)
    wanted = {"embed": {"tokens": inner.grad.numpy()}, "context": {"tokens": outer.grad.numpy()}}
    assert tiny.relative_error(found, wanted) < 1e-4


def test_a_mesh_of_eight_gives_the_gradients_of_one(text: TokenDataset) -> None:
    params, batch, found = tiny.parameters(SKIP, size=0.5), batch_of(SKIP, text), []
    for parallel in (ParallelConfig(), ParallelConfig(fsdp=4, tensor=2)):
        config = run_of(SKIP, text.path, parallel=parallel)
        mesh = make_mesh(parallel, jax.devices()[: 8 if parallel.fsdp > 1 else 1])
        placed = to_device(batch, mesh, objective_of(config).arrays)
        with jax.set_mesh(mesh):
            found.append(jax.jit(lambda p, b, c=config: gradients(p, b, c))(params, placed))
    assert tiny.relative_error(found[1], found[0]) < 1e-5


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_dataset: Path) -> Path:
    out = tmp_path_factory.mktemp("word2vec") / "run"
    train(run_of(SKIP, tiny_dataset, out))
    return out


@pytest.mark.slow
def test_it_resumes_bitwise(trained: Path, tiny_dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(run_of(SKIP, tiny_dataset, out), callback=lambda record: record["step"] < 3)
    assert not (out / "checkpoints" / "6").exists()
    result = train(run_of(SKIP, tiny_dataset, out))
    assert result["bits_per_byte"] is None  # the loss is not -log p of text
    both = (load_run(folder).params for folder in (trained, out))
    assert jax.tree.all(jax.tree.map(np.array_equal, *both))


def test_vectors_go_out_for_gensim(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from safetensors.numpy import load_file

    made = call_json(capsys, "export", trained, "--to", "word2vec", tmp_path / "out")
    assert made["files"] == ["vectors.txt", "vectors.safetensors"]
    params, tokenizer = load_run(trained).params, Tokenizer.load(trained)
    tensors = load_file(tmp_path / "out" / "vectors.safetensors")
    assert np.array_equal(tensors["tokens"], params["embed"]["tokens"])
    assert np.array_equal(tensors["context"], params["context"]["tokens"])
    names, renamed = names_of(tokenizer)
    assert len({*names}) == len(names)
    assert made["notes"] == ([] if renamed == 0 else [made["notes"][0]])
    lines = (tmp_path / "out" / "vectors.txt").read_text("utf-8").split("\n")
    assert lines[0] == f"{tiny.VOCAB} 16"
    read = {line.split(" ")[0]: line.split(" ")[1:] for line in lines[1:-1]}
    assert list(read) == names
    assert np.array_equal(np.array(list(read.values()), np.float32), tensors["tokens"])
    vectors = pytest.importorskip("gensim.models").KeyedVectors.load_word2vec_format(
        tmp_path / "out" / "vectors.txt"
    )
    near = call_json(capsys, "embed", trained, "return")
    (name,) = near["pieces"][0]
    theirs = dict(vectors.most_similar(name, topn=tiny.VOCAB))
    piece, cosine = near["neighbours"][0][0]
    found = [theirs[n] for i, n in enumerate(names) if tokenizer.decode([i]) == piece]
    assert max(found) == pytest.approx(cosine, abs=1e-4)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("generate", "RUN"), "generate is for decoders, and model.kind is 'word2vec'"),
        (("eval", "RUN"), "is for decoders, and model.kind is 'word2vec'"),
        (("export", "RUN", "--to", "hf", "made"), "'word2vec', of which transformers has no class"),
        (("export", "RUN", "--to", "word2vec", "made", "--as", "llama"), "--as is not for"),
    ],
)
def test_what_it_cannot_do_says_so(
    words: Any, sentence: str, trained: Path, tmp_path: Path, capsys: Any, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = call(capsys, *(trained if word == "RUN" else word for word in words))
    assert code == 2
    assert sentence in err
    assert not (tmp_path / "made").exists()


def test_tasks_are_refused_before_they_are_read(trained: Path, capsys: Any) -> None:
    pytest.importorskip("lm_eval")
    code, _, err = call(capsys, "eval", trained, "--tasks", "no_such_task")
    assert code == 2
    assert "Scoring is for decoders, and model.kind is 'word2vec'" in err


def test_a_config_is_checked_and_goes_through_json(text: TokenDataset) -> None:
    config = run_of(CBOW, text.path)
    assert from_json(to_json(config), type(config)) == config
    for name, value in (("window", 0), ("power", -1.0), ("subsample", float("inf"))):
        with pytest.raises(ConfigError, match=f"model.{name} is"):
            dataclasses.replace(CBOW, **{name: value})
    with pytest.raises(ConfigError, match="set objective to 'negative_samples'"):
        run_of(CBOW, text.path, objective="masked")


def test_what_stands_in_the_same_places_is_near() -> None:
    """Tokens 0 to 4 stand between others than 5 to 9 do: after training by gradient steps on all
    such pairs, each one's nearest is of its own half."""
    model = Word2VecConfig(vocab_size=30, d_model=8, max_seq_len=32, negatives=5, window=1)
    config = run_of(model, "unused", data=DataConfig(path="unused", seq_len=20, batch_size=1))
    params = jax.device_get(model_of(model).init(model, jax.random.key(0)))
    rng = np.random.default_rng(0)
    step = jax.jit(lambda p, b: jax.tree.map(lambda x, g: x - g, p, gradients(p, b, config)[0]))
    for _ in range(200):
        centres = rng.integers(0, 10, (1, 20), dtype=np.int32)
        near = 10 + 10 * (centres[..., None] >= 5) + rng.integers(0, 10, (1, 20, 2))
        batch = {
            "inputs": centres,
            "targets": near.reshape(1, -1).astype(np.int32),
            "negatives": rng.integers(10, 30, (1, 200), dtype=np.int32),
        }
        params = step(params, batch)
    vectors = np.asarray(params["embed"]["tokens"])[:10]
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = unit @ unit.T - 2 * np.eye(10)
    assert ((cosines.argmax(axis=1) >= 5) == (np.arange(10) >= 5)).all()
    assert cosines[:5, 5:].max() < 0.6
    assert cosines[:5, :5][~np.eye(5, dtype=bool)].min() > 0.9
