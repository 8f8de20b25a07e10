"""A small real corpus in English, Japanese and code, a tokenizer and a dataset made of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from data_samples import JAPANESE, silent, stdlib_texts

from llm_jax.data.build import BuildSpec, build
from llm_jax.data.dataset import TokenDataset
from llm_jax.data.sources import FileSource
from llm_jax.data.tokenizers import Tokenizer
from llm_jax.data.tokenizers.training import train


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return train([*(text for _, text in stdlib_texts()), JAPANESE * 20], vocab_size=1200)


@pytest.fixture(scope="session")
def corpus_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """About 40 documents: functions' worth of source in files and Japanese in JSONL."""
    folder = tmp_path_factory.mktemp("corpus")
    for name, text in stdlib_texts():
        quarter = len(text) // 4
        for part in range(4):
            piece = text[part * quarter : (part + 1) * quarter]
            (folder / f"{name}_{part}.py").write_text(piece, encoding="utf-8")
    lines = [json.dumps({"text": line}, ensure_ascii=False) for line in JAPANESE.splitlines()]
    (folder / "japanese.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def dataset(
    tmp_path_factory: pytest.TempPathFactory, corpus_folder: Path, tokenizer: Tokenizer
) -> TokenDataset:
    out = tmp_path_factory.mktemp("built") / "dataset"
    spec = BuildSpec(
        sources=(FileSource(corpus_folder, licence="PSF-2.0"),),
        tokenizer=tokenizer,
        validation_fraction=0.1,
    )
    build(spec, out, silent)
    return TokenDataset.open(out)
