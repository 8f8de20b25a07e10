"""docs/notebook.md runs as it stands, and gives what the command line gives."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import sysconfig
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import llm_jax as lj
from llm_jax.convert.parity import our_logits
from llm_jax.data.build import BuildSpec, VocabSpec, build
from llm_jax.data.sources import FileSource
from llm_jax.train.metrics import read_metrics

PAGE = Path(__file__).resolve().parent.parent / "docs" / "notebook.md"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def notebook(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the page's blocks, run one after another on getting-started's dataset, leave behind."""
    folder = tmp_path_factory.mktemp("notebook")
    stdlib = Path(sysconfig.get_path("stdlib"))
    spec = BuildSpec(
        sources=tuple(FileSource(stdlib / name) for name in ("asyncio", "email", "json")),
        tokenizer=VocabSpec(vocab_size=4096),
    )
    build(spec, folder / "data" / "python", lambda phase, done, total: None)
    names: dict[str, Any] = {"folder": folder}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for block in BLOCK.findall(PAGE.read_text("utf-8")):
            exec(compile(block, str(PAGE), "exec"), names)
    return names


@pytest.mark.slow
def test_a_plan_is_that_of_the_command_line(notebook: dict[str, Any]) -> None:
    planned = notebook["planned"]
    assert planned.figures["loss"] == planned.prediction.loss
    assert planned.figures["tokens"] == planned.prediction.tokens
    assert f"{planned.config.model.num_layers} layers" in str(planned)
    with pytest.raises(lj.UserError, match="no flag '--dollars'"):
        lj.plan_run(dollars=3)
    with pytest.raises(lj.UserError, match="has no report"):
        lj.plan_run(flops=1e15, report="plan.html")


@pytest.mark.slow
def test_a_batch_of_a_dataset(notebook: dict[str, Any]) -> None:
    batch = notebook["batch"]
    assert {name: array.shape for name, array in batch.items()} == dict.fromkeys(
        ("inputs", "targets", "segments", "positions"), (4, 64)
    )
    again = notebook["dataset"].batches(seq_len=64, batch_size=4).at(0)
    np.testing.assert_array_equal(again["inputs"], batch["inputs"])


@pytest.mark.slow
def test_the_callback_stops_the_run_and_the_same_call_resumes_it(notebook: dict[str, Any]) -> None:
    stopped, finished = notebook["stopped"], notebook["finished"]
    assert stopped["exit_code"] == 130
    assert stopped["step"] in (10, 11)  # metrics are read while the next step runs
    assert (finished["step"], finished["exit_code"]) == (20, 0)
    records = list(read_metrics(notebook["folder"] / "runs" / "notebook" / "metrics.jsonl"))
    train = [record["loss"] for record in records if record["split"] == "train"]
    assert notebook["losses"] == train[:2]
    assert len(train) == 4


@pytest.mark.slow
def test_a_run_trains_in_another_thread(notebook: dict[str, Any], tmp_path: Path) -> None:
    results: list[dict[str, Any]] = []
    config = lj.load_config(str(notebook["folder"] / "runs" / "notebook"))
    thread = threading.Thread(
        target=lambda: results.append(
            lj.train_run(config, out=str(tmp_path / "run"), callback=lambda record: False)
        )
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(notebook["folder"])
        thread.start()
        thread.join()
    assert results[0]["step"] in (5, 6)
    with pytest.raises(lj.UserError, match="no field 'stepz'"):
        lj.train_run(config, stepz=3)


@pytest.mark.slow
def test_logits_loss_and_text_of_a_model(notebook: dict[str, Any]) -> None:
    model = notebook["model"]
    ids = model.tokens("def read(self):")
    logits = model.logits("def read(self):")
    assert logits.shape == (len(ids), model.config.vocab_size)
    np.testing.assert_array_equal(logits, model.logits(ids))
    ours = our_logits(model.params, model.config, np.array([ids], np.int32))[0]
    np.testing.assert_array_equal(logits, ours)

    # The loss of a document is the mean of -log p of its tokens and of </s>.
    text = "import json\n"
    ids = [*model.tokens(text), model.tokenizer.eos_id]
    logits = model.logits(ids).astype(np.float64)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    wanted = -log_p[np.arange(len(ids) - 1), ids[1:]].mean()
    score = model.loss(text)
    assert score.loss == pytest.approx(wanted, rel=1e-4)
    assert (score.tokens, score.num_bytes) == (len(ids) - 1, len(text))

    pieces: list[str] = []
    made = model.generate("def ", max_tokens=16, temperature=0, on_text=pieces.append)
    assert made == "".join(pieces) == model.generate("def ", max_tokens=16, temperature=0)
    with pytest.raises(lj.UserError, match="There is no text"):
        model.loss([])
    with pytest.raises(lj.UserError, match="513 tokens"):
        model.logits([1] * 513)


@pytest.mark.slow
def test_a_hugging_face_folder_gives_the_logits_of_its_run(notebook: dict[str, Any]) -> None:
    folder = notebook["folder"]
    command = [sys.executable, "-m", "llm_jax", "export", "runs/notebook", "--to", "hf", "hf"]
    subprocess.run([*command, "--no-check"], cwd=folder, check=True, capture_output=True)
    loaded = lj.load_model(folder / "hf")
    assert loaded.step is None
    with pytest.raises(lj.UserError, match="has no step 3"):
        lj.load_model(folder / "hf", 3)
    with pytest.raises(lj.UserError, match="leave tokenizer out"):
        lj.load_model(folder / "runs" / "notebook", tokenizer="x.model")
    difference = loaded.logits("x = 1") - notebook["model"].logits("x = 1")
    assert np.abs(difference).max() < 1e-5


def test_the_package_offers_the_public_names_only() -> None:
    assert set(lj.__all__) <= set(dir(lj))
    with pytest.raises(AttributeError, match="no attribute 'pretrain'"):
        _ = lj.pretrain
    imports = [block.splitlines()[0] for block in BLOCK.findall(PAGE.read_text("utf-8"))]
    assert imports[0] == "import llm_jax as lj"
    assert all(ast.parse(block) for block in BLOCK.findall(PAGE.read_text("utf-8")))


def test_importing_imports_nothing_else() -> None:
    code = (
        "import sys; import llm_jax as lj; dir(lj)\n"
        "print([name for name in ('jax', 'numpy', 'llm_jax.api') if name in sys.modules])\n"
        "lj.plan_run(flops=1e15, chip='v5e', chips=1)\n"
        "print([name for name in ('jax', 'flax', 'optax') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "[]"]
