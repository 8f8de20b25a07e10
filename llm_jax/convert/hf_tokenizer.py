"""The SentencePiece tokenizer as the files that `AutoTokenizer` loads, with the same ids.

`tokenizer.model` is copied; `tokenizer.json` is the same BPE for the tokenizers library.
`tokenizer_config.json` names `LlamaTokenizer`, which works with every model type. With a dummy
prefix it names `PreTrainedTokenizerFast`: `LlamaTokenizer` adds a prefix of its own, and none to a
text that begins with a space.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as FastTokenizer

from llm_jax.config import UserError
from llm_jax.convert.sample import SAMPLE
from llm_jax.data.fidelity import compare
from llm_jax.data.tokenizer import BPE, Tokenizer

UNKNOWN, CONTROL, USER_DEFINED = 2, 3, 4  # types of pieces in sentencepiece_model.proto
FILES = ["tokenizer.model", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"]


def write(folder: Path, tokenizer: Tokenizer, max_seq_len: int) -> list[str]:
    """Writes `FILES`.

    Raises:
      UserError: as `require_exportable` does.
    """
    require_exportable(tokenizer)
    proto = tokenizer.proto
    special = {"bos_token": tokenizer.bos_id, "eos_token": tokenizer.eos_id}
    special["unk_token"] = proto.trainer_spec.unk_id
    if tokenizer.pad_id >= 0:
        special["pad_token"] = tokenizer.pad_id
    names = {role: proto.pieces[i].piece for role, i in special.items()}
    config = {
        **names,
        **_loader(proto.normalizer_spec.add_dummy_prefix),
        "clean_up_tokenization_spaces": False,
        "model_max_length": max_seq_len,
    }
    (folder / "tokenizer.model").write_bytes(tokenizer.model)
    fast_tokenizer(tokenizer).save(str(folder / "tokenizer.json"))
    _write_json(folder / "tokenizer_config.json", config)
    _write_json(folder / "special_tokens_map.json", names)
    return FILES


def _loader(dummy_prefix: bool) -> dict[str, Any]:
    """The class that transformers loads, and its settings."""
    if dummy_prefix:
        return {"tokenizer_class": "PreTrainedTokenizerFast"}
    return {
        "tokenizer_class": "LlamaTokenizer",
        "legacy": False,
        "add_prefix_space": False,
        "add_bos_token": True,
        "add_eos_token": False,
    }


def fast_tokenizer(tokenizer: Tokenizer) -> FastTokenizer:
    """The same BPE in the tokenizers library, for tokenizers whose settings it supports."""
    proto = tokenizer.proto
    vocab = {piece.piece: i for i, piece in enumerate(proto.pieces)}
    bos = proto.pieces[tokenizer.bos_id].piece
    unknown = proto.pieces[proto.trainer_spec.unk_id].piece
    fast = FastTokenizer(
        models.BPE(
            vocab=vocab, merges=_merges(vocab), unk_token=unknown, fuse_unk=True, byte_fallback=True
        )
    )
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    if proto.normalizer_spec.add_dummy_prefix:
        fast.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        )
        steps.append(decoders.Strip(" ", 1, 0))
    else:
        fast.pre_tokenizer = pre_tokenizers.Metaspace(
            replacement="▁", prepend_scheme="never", split=False
        )
    fast.decoder = decoders.Sequence(steps)
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
    """Every pair that forms a piece, in SentencePiece's order of preference."""
    merges: list[tuple[str, str]] = []
    for piece in vocab:
        cuts = [(piece[:i], piece[i:]) for i in range(1, len(piece))]
        known = [(a, b) for a, b in cuts if a in vocab and b in vocab]
        merges += sorted(known, key=lambda pair: (vocab[pair[0]], vocab[pair[1]]))
    return merges


def require_exportable(tokenizer: Tokenizer, way_out: str = "") -> None:
    """Raises `UserError` unless Hugging Face's libraries can give the same ids.

    Args:
      way_out: an alternative to another tokenizer, for the end of the message.
    """
    if problem := why_not_exportable(tokenizer):
        example = compare("the sample", [SAMPLE], tokenizer).example
        if example:
            problem += f" and loses text ({example['was']!r} becomes {example['became']!r})"
        raise UserError(
            f"The tokenizer {problem}, so no Hugging Face tokenizer gives its ids and a model "
            "trained with it could not be exported: train one with `llm-jax tokenizer train`"
            f"{way_out}."
        )


def why_not_exportable(tokenizer: Tokenizer) -> str | None:
    """What the tokenizers library cannot reproduce of the SentencePiece model; None if nothing."""
    return _setting(tokenizer) or _difference(tokenizer)


def _setting(tokenizer: Tokenizer) -> str | None:
    spec, normalizer = tokenizer.proto.trainer_spec, tokenizer.proto.normalizer_spec
    if spec.model_type != BPE:
        return "is not a BPE model"
    if not spec.byte_fallback:
        return "has no byte fallback"
    if normalizer.precompiled_charsmap:
        return f"normalises text ({normalizer.name})"
    if normalizer.remove_extra_whitespaces:
        return "removes extra spaces"
    if normalizer.add_dummy_prefix and spec.treat_whitespace_as_suffix:
        return "puts spaces at the end of words"
    return None


def _difference(tokenizer: Tokenizer) -> str | None:
    """How the tokenizers library encodes a text differently; None if it does not.

    It puts a dummy prefix after each added token too. It looks for added tokens before it
    normalises the text, so it does not find those that contain spaces.
    """
    fast = fast_tokenizer(tokenizer)
    for line in [*SAMPLE.splitlines(), SAMPLE, *_around(tokenizer)]:
        if fast.encode(line, add_special_tokens=False).ids != tokenizer.encode(line):
            return f"has pieces that Hugging Face's library splits differently, as in {line!r}"
    return None


def _around(tokenizer: Tokenizer) -> Iterable[str]:
    """Text around each user-defined piece."""
    for piece in tokenizer.proto.pieces:
        if piece.type == USER_DEFINED:
            written = piece.piece.replace("▁", " ")
            yield f"one{written}two {written} three"


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
