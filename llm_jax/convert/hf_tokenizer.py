"""A tokenizer as the files that `AutoTokenizer` loads, with the same ids.

What came from a Hugging Face folder goes out as it came in. For a SentencePiece model of its own,
`tokenizer.model` is copied, and `tokenizer.json` is the same for the tokenizers library.
`tokenizer_config.json` names `LlamaTokenizer` where that adds nothing of its own, which works with
every model type, and `PreTrainedTokenizerFast` otherwise: with a dummy prefix, `LlamaTokenizer`
adds none to a text that begins with a space, and it always falls back to bytes. Special tokens in a
text stay text, as here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as FastTokenizer

from llm_jax.config import UserError, read_json
from llm_jax.convert.sample import SAMPLE
from llm_jax.data.fidelity import compare
from llm_jax.data.tokenizers import Tokenizer
from llm_jax.data.tokenizers.files import JSON_FILE, SETTINGS
from llm_jax.data.tokenizers.mask import mask_id
from llm_jax.data.tokenizers.sentence_piece import (
    BPE,
    BYTE,
    CONTROL,
    MODEL_FILE,
    UNIGRAM,
    UNKNOWN,
    USER_DEFINED,
    SentencePieceTokenizer,
)


def write(folder: Path, tokenizer: Tokenizer, max_seq_len: int | None = None) -> list[str]:
    """Writes the tokenizer's files, and returns their names.

    Args:
      max_seq_len: T of the model; None: the tokenizer is for any.

    Raises:
      UserError: as `require_exportable` does.
    """
    require_exportable(tokenizer)
    files = _files(tokenizer, max_seq_len)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return list(files)


def name_mask(folder: Path, tokenizer: Tokenizer) -> list[str]:
    """Names the token that stands for a hidden one in the settings of `folder`, if nothing does;
    the files that it changed or wrote."""
    path = folder / SETTINGS[0]
    settings = read_json(path) if path.is_file() else {}
    if "mask_token" in settings:
        return []
    marks = [tokenizer.bos_id, tokenizer.eos_id, mask_id(tokenizer)]
    names = dict(
        zip(("cls_token", "sep_token", "mask_token"), tokenizer.pieces(marks), strict=True)
    )
    path.write_bytes(_json(names | settings))
    return [path.name]


def _files(tokenizer: Tokenizer, max_seq_len: int | None) -> dict[str, bytes]:
    if not isinstance(tokenizer, SentencePieceTokenizer):
        return {JSON_FILE: tokenizer.content, **tokenizer.companions}
    if came_from_a_folder(tokenizer):
        return {MODEL_FILE: tokenizer.content, **tokenizer.companions}
    names = _special_names(tokenizer)
    settings = {
        **names,
        **_loader(tokenizer),
        "split_special_tokens": True,
        "clean_up_tokenization_spaces": False,
    }
    if max_seq_len is not None:
        settings["model_max_length"] = max_seq_len
    return {
        MODEL_FILE: tokenizer.content,
        JSON_FILE: fast_tokenizer(tokenizer).to_str(pretty=True).encode(),
        SETTINGS[0]: _json(settings),
        SETTINGS[1]: _json(names),
    }


def came_from_a_folder(tokenizer: Tokenizer) -> bool:
    """Whether a Hugging Face folder's own files lie beside the tokenizer."""
    return not {JSON_FILE, SETTINGS[0]}.isdisjoint(tokenizer.companions)


def _special_names(tokenizer: SentencePieceTokenizer) -> dict[str, str]:
    special = {"bos_token": tokenizer.bos_id, "eos_token": tokenizer.eos_id}
    special["unk_token"] = tokenizer.proto.trainer_spec.unk_id
    if tokenizer.pad_id >= 0:
        special["pad_token"] = tokenizer.pad_id
    return {role: tokenizer.proto.pieces[i].piece for role, i in special.items()}


def _loader(tokenizer: SentencePieceTokenizer) -> dict[str, Any]:
    """The class that transformers loads, and its settings."""
    spec = tokenizer.proto.trainer_spec
    if spec.model_type != BPE or not spec.byte_fallback or _normalises(tokenizer.proto):
        return {"tokenizer_class": "PreTrainedTokenizerFast"}
    return {
        "tokenizer_class": "LlamaTokenizer",
        "legacy": False,
        "add_prefix_space": False,
        "add_bos_token": True,
        "add_eos_token": False,
    }


def _normalises(proto: Any) -> bool:
    spec = proto.normalizer_spec
    return bool(spec.add_dummy_prefix or spec.remove_extra_whitespaces or spec.precompiled_charsmap)


def fast_tokenizer(tokenizer: SentencePieceTokenizer) -> FastTokenizer:
    """The same model in the tokenizers library, where its settings are supported."""
    proto = tokenizer.proto
    bos = proto.pieces[tokenizer.bos_id].piece
    fast = FastTokenizer(_model(proto))
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    before: list[Any] = []
    if _normalises(proto):
        fast.normalizer = normalizers.Sequence(_normalizers(proto.normalizer_spec))
    else:
        before.append(
            pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="never", split=False)
        )
    if proto.trainer_spec.model_type == UNIGRAM:
        before.append(pre_tokenizers.Split(Regex(_only_by_id(tokenizer)), "merged_with_previous"))
    if before:
        fast.pre_tokenizer = pre_tokenizers.Sequence(before) if before[1:] else before[0]
    if proto.normalizer_spec.add_dummy_prefix:
        steps.append(decoders.Strip(" ", 1, 0))
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


def _model(proto: Any) -> Any:
    spec = proto.trainer_spec
    if spec.model_type == UNIGRAM:
        scored = [(piece.piece, piece.score) for piece in proto.pieces]
        return models.Unigram(scored, unk_id=spec.unk_id, byte_fallback=spec.byte_fallback)
    vocab = {piece.piece: i for i, piece in enumerate(proto.pieces)}
    unknown = proto.pieces[spec.unk_id].piece
    return models.BPE(
        vocab=vocab,
        merges=_merges(vocab, {piece.piece: piece.score for piece in proto.pieces}),
        unk_token=unknown,
        fuse_unk=True,
        byte_fallback=spec.byte_fallback,
    )


def _only_by_id(tokenizer: SentencePieceTokenizer) -> str:
    """A pattern of the beginnings of texts that spell a control or byte piece.

    SentencePiece makes no such piece of a text. The tokenizers library's Unigram does, unless the
    text is cut: behind SentencePiece's own first piece of it.
    """
    kinds = (UNKNOWN, CONTROL, BYTE)
    names = [one.piece for one in tokenizer.proto.pieces if one.type in kinds]
    cuts = [(name, tokenizer.first_cut(name)) for name in names]
    return "|".join(f"{re.escape(name[:i])}(?={re.escape(name[i:])})" for name, i in cuts if i)


def _normalizers(spec: Any) -> list[Any]:
    """SentencePiece's normalisation, in its order."""
    steps: list[Any] = []
    if spec.precompiled_charsmap:
        steps.append(normalizers.Precompiled(spec.precompiled_charsmap))
    if spec.remove_extra_whitespaces:
        steps.append(normalizers.Replace(Regex(r"\A +|[ ▁]+\z"), ""))
        steps.append(normalizers.Replace(Regex(" {2,}"), " "))
    if spec.add_dummy_prefix:
        steps.append(normalizers.Prepend("▁"))
    return [*steps, normalizers.Replace(" ", "▁")]


def _merges(vocab: dict[str, int], scores: dict[str, float]) -> list[tuple[str, str]]:
    """Every pair that forms a piece, in SentencePiece's order of preference."""
    merges: list[tuple[str, str]] = []
    for piece in sorted(vocab, key=lambda piece: (-scores[piece], vocab[piece])):
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
    """What the tokenizers library cannot reproduce of a SentencePiece model; None if nothing.

    What came from a Hugging Face folder is not asked: the export compares the ids that its own
    files give.
    """
    if not isinstance(tokenizer, SentencePieceTokenizer) or came_from_a_folder(tokenizer):
        return None
    return _setting(tokenizer) or _difference(tokenizer)


def _setting(tokenizer: SentencePieceTokenizer) -> str | None:
    spec = tokenizer.proto.trainer_spec
    if spec.model_type not in (UNIGRAM, BPE):
        return "is neither a BPE nor a Unigram model"
    if spec.treat_whitespace_as_suffix:
        return "puts spaces at the end of words"
    return None


def _difference(tokenizer: SentencePieceTokenizer) -> str | None:
    """How the tokenizers library encodes a text differently; None if it does not.

    It puts a dummy prefix after each added token too. It looks for added tokens before it
    normalises the text, so it does not find those that contain spaces.
    """
    fast = fast_tokenizer(tokenizer)
    fast.encode_special_tokens = True
    for line in [*SAMPLE.splitlines(), SAMPLE, *tokenizer.special, *_around(tokenizer)]:
        if fast.encode(line, add_special_tokens=False).ids != tokenizer.encode(line):
            return f"has pieces that Hugging Face's library splits differently, as in {line!r}"
    return None


def _around(tokenizer: SentencePieceTokenizer) -> Iterable[str]:
    """Text around each user-defined piece."""
    for piece in tokenizer.proto.pieces:
        if piece.type == USER_DEFINED:
            written = piece.piece.replace("▁", " ")
            yield f"one{written}two {written} three"


def _json(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()
