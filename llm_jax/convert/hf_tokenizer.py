"""The SentencePiece tokenizer as the files that `AutoTokenizer` loads, with the same ids.

`tokenizer.model` is copied; `tokenizer.json` says the same as a BPE of the tokenizers library;
`tokenizer_config.json` names `LlamaTokenizer`, which every model type may have beside it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, decoders, models, pre_tokenizers, processors
from tokenizers import Tokenizer as FastTokenizer

from llm_jax.config import UserError
from llm_jax.data.tokenizer import Tokenizer

BPE, UNKNOWN, CONTROL, USER_DEFINED = 2, 2, 3, 4  # numbers of sentencepiece_model.proto
FILES = ["tokenizer.model", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"]


def write(folder: Path, tokenizer: Tokenizer, max_seq_len: int) -> list[str]:
    """Writes `FILES`.

    Raises:
      UserError: a SentencePiece model that LlamaTokenizer would read as something else.
    """
    proto = _proto(tokenizer)
    special = {"bos_token": tokenizer.bos_id, "eos_token": tokenizer.eos_id}
    special["unk_token"] = proto.trainer_spec.unk_id
    if tokenizer.pad_id >= 0:
        special["pad_token"] = tokenizer.pad_id
    names = {role: proto.pieces[i].piece for role, i in special.items()}
    config = {
        **names,
        "tokenizer_class": "LlamaTokenizer",
        "legacy": False,
        "add_prefix_space": proto.normalizer_spec.add_dummy_prefix,
        "add_bos_token": True,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": max_seq_len,
    }
    (folder / "tokenizer.model").write_bytes(tokenizer.model)
    fast_tokenizer(tokenizer).save(str(folder / "tokenizer.json"))
    _write_json(folder / "tokenizer_config.json", config)
    _write_json(folder / "special_tokens_map.json", names)
    return FILES


def fast_tokenizer(tokenizer: Tokenizer) -> FastTokenizer:
    """The same BPE in the tokenizers library; raises `UserError` as `write` does."""
    proto = _proto(tokenizer)
    vocab = {piece.piece: i for i, piece in enumerate(proto.pieces)}
    bos = proto.pieces[tokenizer.bos_id].piece
    unknown = proto.pieces[proto.trainer_spec.unk_id].piece
    fast = FastTokenizer(
        models.BPE(
            vocab=vocab, merges=_merges(vocab), unk_token=unknown, fuse_unk=True, byte_fallback=True
        )
    )
    prefix = proto.normalizer_spec.add_dummy_prefix
    fast.pre_tokenizer = pre_tokenizers.Metaspace(
        replacement="▁", prepend_scheme="first" if prefix else "never", split=False
    )
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    fast.decoder = decoders.Sequence(steps + [decoders.Strip(" ", 1, 0)] * prefix)
    for piece in proto.pieces:
        if piece.type in (UNKNOWN, CONTROL, USER_DEFINED):
            special = piece.type != USER_DEFINED
            fast.add_tokens([AddedToken(piece.piece, normalized=False, special=special)])
    fast.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A",
        pair=f"{bos} $A {bos} $B",
        special_tokens=[(bos, tokenizer.bos_id)],
    )
    return fast


def _merges(vocab: dict[str, int]) -> list[tuple[str, str]]:
    """Every pair that makes a piece, in the order in which SentencePiece prefers the pieces."""
    merges: list[tuple[str, str]] = []
    for piece in vocab:
        cuts = [(piece[:i], piece[i:]) for i in range(1, len(piece))]
        known = [(a, b) for a, b in cuts if a in vocab and b in vocab]
        merges += sorted(known, key=lambda pair: (vocab[pair[0]], vocab[pair[1]]))
    return merges


def _proto(tokenizer: Tokenizer) -> Any:
    proto = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]
    proto.ParseFromString(tokenizer.model)
    spec, normalizer = proto.trainer_spec, proto.normalizer_spec
    problem = ""
    if spec.model_type != BPE:
        problem = "is no BPE model"
    elif not spec.byte_fallback:
        problem = "has no byte fallback"
    elif normalizer.precompiled_charsmap:
        problem = f"normalises text ({normalizer.name})"
    elif normalizer.remove_extra_whitespaces:
        problem = "removes extra spaces"
    if problem:
        raise UserError(
            f"The tokenizer {problem}, which Hugging Face's LlamaTokenizer would not do: the "
            "exported model would get other ids; train it with `llm-jax tokenizer train`."
        )
    return proto


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
