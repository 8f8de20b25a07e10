"""The tokenizer of an exported encoder with a head: it puts the marks around texts that training
put there. And the files by which the library sentence-transformers knows how a vector is made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from llm_jax.config import EncoderConfig, ModernEncoderConfig, read_json
from llm_jax.convert.hf_tokenizer import came_from_a_folder
from llm_jax.data.tokenizers import Tokenizer
from llm_jax.data.tokenizers.files import JSON_FILE, SETTINGS
from llm_jax.data.tokenizers.sentence_piece import SentencePieceTokenizer

TRANSFORMER = "sentence_transformers.models.Transformer"
POOLING = "sentence_transformers.models.Pooling"


def write(folder: Path, tokenizer: Tokenizer, model: Any) -> list[str]:
    """Completes the files of a tokenizer of our own in `folder`, and for `embed` writes those of
    sentence-transformers; their names. What came from a Hugging Face folder stays as it is."""
    assert isinstance(model, EncoderConfig | ModernEncoderConfig)
    names = []
    if isinstance(tokenizer, SentencePieceTokenizer) and not came_from_a_folder(tokenizer):
        _with_marks(folder, tokenizer, isinstance(model, EncoderConfig))
    if model.head == "embed":
        files = {
            "modules.json": [
                {"idx": 0, "name": "0", "path": "", "type": TRANSFORMER},
                {"idx": 1, "name": "1", "path": "1_Pooling", "type": POOLING},
            ],
            "sentence_bert_config.json": {"max_seq_length": model.max_seq_len},
            "1_Pooling/config.json": {
                "word_embedding_dimension": model.d_model,
                "pooling_mode_mean_tokens": True,
            },
        }
        (folder / "1_Pooling").mkdir()
        for name, content in files.items():
            _write(folder / name, content)
            names.append(name)
    return names


def _with_marks(folder: Path, tokenizer: SentencePieceTokenizer, types: bool) -> None:
    begin, end = tokenizer.pieces([tokenizer.bos_id, tokenizer.eos_id])
    file, settings = read_json(folder / JSON_FILE), read_json(folder / SETTINGS[0])

    def mark(name: str, type_id: int) -> dict[str, Any]:
        return {"SpecialToken": {"id": name, "type_id": type_id}}

    def text(name: str, type_id: int) -> dict[str, Any]:
        return {"Sequence": {"id": name, "type_id": type_id}}

    single = [mark(begin, 0), text("A", 0), mark(end, 0)]
    ids = {begin: tokenizer.bos_id, end: tokenizer.eos_id}
    file["post_processor"] = {
        "type": "TemplateProcessing",
        "single": single,
        "pair": [*single, text("B", 1), mark(end, 1)],
        "special_tokens": {
            name: {"id": name, "ids": [number], "tokens": [name]} for name, number in ids.items()
        },
    }
    # LlamaTokenizer would put marks of its own around texts.
    dropped = ("legacy", "add_prefix_space", "add_bos_token", "add_eos_token")
    settings = {name: value for name, value in settings.items() if name not in dropped}
    inputs = ["input_ids", *(["token_type_ids"] if types else []), "attention_mask"]
    settings |= {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "cls_token": begin,
        "sep_token": end,
        "model_input_names": inputs,
    }
    _write(folder / JSON_FILE, file)
    _write(folder / SETTINGS[0], settings)


def notes(folder: Path, tokenizer: Tokenizer) -> list[str]:
    """What AutoTokenizer does otherwise than training did around one text and around two."""
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    a, b = tokenizer.encode("one"), tokenizer.encode("two")
    begin, end = tokenizer.bos_id, tokenizer.eos_id
    wanted = {"text": [begin, *a, end], "pair": [begin, *a, end, *b, end]}
    made = {"text": theirs("one")["input_ids"], "pair": theirs("one", "two")["input_ids"]}
    other = [what for what, ids in wanted.items() if made[what] != ids]
    if not other:
        return []
    marks = tokenizer.pieces([begin, end])
    return [
        f"AutoTokenizer puts other marks around a {' and a '.join(other)} than training did, which "
        f"was {marks[0]} one {marks[1]}, or {marks[0]} one {marks[1]} two {marks[1]}"
    ]


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
