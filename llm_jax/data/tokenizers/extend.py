"""Adds pieces of other text to a trained tokenizer, whose ids stay as they are."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from sentencepiece import sentencepiece_model_pb2

from llm_jax.config import UserError
from llm_jax.data.tokenizers.base import Tokenizer
from llm_jax.data.tokenizers.json_file import JsonTokenizer, library_of
from llm_jax.data.tokenizers.sentence_piece import BPE, MODEL_FILE, SentencePieceTokenizer
from llm_jax.data.tokenizers.training import BYTES_AND_CONTROL, COVERAGE, sentences, train

STALE = (MODEL_FILE, "tokenizer.json", "vocab.json", "merges.txt", "added_tokens.json")
"""Files beside a tokenizer that hold its vocabulary too."""
NO_TEXT = -1e8
"""Scores below this are of pieces that came into a SentencePiece model without training."""


class Extended(NamedTuple):
    """A tokenizer with more pieces; and for each new id, in order, the old ids that it replaces."""

    tokenizer: Tokenizer
    replaced: list[list[int]]


def extend(tokenizer: Tokenizer, texts: Iterable[str], add: int) -> Extended:
    """`tokenizer` with `add` pieces that byte-pair encoding finds in `texts`.

    The merges of the new pieces come after all old ones, so a text in which no new piece occurs
    keeps its ids. New characters come with the pieces that need them.

    Raises:
      UserError: the texts yield fewer pieces, or the tokenizer is not a BPE of SentencePiece or a
        byte-level BPE.
    """
    require_extendable(tokenizer)
    if isinstance(tokenizer, SentencePieceTokenizer):
        return _sentence_piece(tokenizer, texts, add)
    assert isinstance(tokenizer, JsonTokenizer)
    return _byte_level(tokenizer, texts, add)


def require_extendable(tokenizer: Tokenizer) -> None:
    """Raises `UserError` unless `extend` takes tokenizers of this kind."""
    if isinstance(tokenizer, SentencePieceTokenizer):
        fits = tokenizer.proto.trainer_spec.model_type == BPE
    else:
        fits = isinstance(tokenizer, JsonTokenizer) and tokenizer.is_byte_level_bpe
    if not fits:
        raise UserError(
            "The tokenizer is neither a SentencePiece BPE nor a byte-level BPE: pieces can be "
            "added to these only."
        )


def _sentence_piece(tokenizer: SentencePieceTokenizer, texts: Iterable[str], add: int) -> Extended:
    trained = train(texts, BYTES_AND_CONTROL + 2 * add, COVERAGE)
    found = trained.pieces(range(BYTES_AND_CONTROL, trained.vocab_size))
    chosen: dict[str, None] = {}
    known = {piece.piece for piece in tokenizer.proto.pieces}
    for piece in found:
        fresh = [part for part in (*piece, piece) if part not in known and part not in chosen]
        if len(chosen) + len(set(fresh)) <= add:
            chosen |= dict.fromkeys(fresh)
    _require_enough(len(chosen), add)
    proto = _copy(tokenizer.proto)
    lowest = min(one.score for one in proto.pieces if one.score > NO_TEXT)
    for i, piece in enumerate(chosen, 1):
        proto.pieces.add(piece=piece, score=lowest - i)
    proto.trainer_spec.vocab_size = len(proto.pieces)
    made = SentencePieceTokenizer(proto.SerializeToString(), _still_true(tokenizer))
    plain = _copy(tokenizer.proto)  # a piece is no text: nothing is put before it or removed
    plain.normalizer_spec.add_dummy_prefix = False
    plain.normalizer_spec.remove_extra_whitespaces = False
    plain.normalizer_spec.precompiled_charsmap = b""
    old = SentencePieceTokenizer(plain.SerializeToString())
    return Extended(made, [old.encode(piece.replace("▁", " ")) for piece in chosen])


def _byte_level(tokenizer: JsonTokenizer, texts: Iterable[str], add: int) -> Extended:
    raw = json.loads(tokenizer.content)
    vocab, merges = raw["model"]["vocab"], raw["model"]["merges"]
    for token in raw.get("added_tokens", ()):  # where it is not found, the library numbers it anew
        vocab.setdefault(token["content"], token["id"])
    spaced = bool(merges) and isinstance(merges[0], str)
    replaced: list[list[int]] = []
    for left, right in _further_merges(library_of(tokenizer.content), texts, add):
        pair = ["".join(tokenizer.pieces(ids)) for ids in (left, right)]
        if "".join(pair) not in vocab and len(replaced) < add:
            vocab["".join(pair)] = tokenizer.vocab_size + len(replaced)
            replaced.append(left + right)
            merges.append(" ".join(pair) if spaced else pair)
    _require_enough(len(replaced), add)
    content = json.dumps(raw, ensure_ascii=False, indent=2).encode()
    return Extended(JsonTokenizer(content, _still_true(tokenizer)), replaced)


FIRST = 0x10000
"""Code point of the character that stands for id 0."""


def _further_merges(
    old: Any, texts: Iterable[str], add: int
) -> Iterator[tuple[list[int], list[int]]]:
    """The merges with which byte-pair encoding goes on where `old` ends, as old ids.

    The library trains on words of characters. So each old id is written as a character of its own.
    """
    from tokenizers import Tokenizer as Library
    from tokenizers import models, pre_tokenizers, trainers

    library = Library(models.BPE())
    library.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words = [_spelled(old.encode(line, add_special_tokens=False)) for line in sentences(texts)]
    used = len(set().union(*words))
    trainer = trainers.BpeTrainer(vocab_size=used + 2 * add, show_progress=False)
    library.train_from_iterator(words, trainer)
    trained = json.loads(library.to_str())["model"]["merges"]
    for left, right in trained:
        yield [ord(c) - FIRST for c in left], [ord(c) - FIRST for c in right]


def _spelled(encoding: Any) -> str:
    """The ids as characters, with a space between words of the pre-tokenizer."""
    words: dict[int | None, str] = {}
    for word, i in zip(encoding.word_ids, encoding.ids, strict=True):
        words[word] = words.get(word, "") + chr(FIRST + i)
    return " ".join(words.values())


def _require_enough(found: int, add: int) -> None:
    if found < add:
        raise UserError(
            f"--add is {add}, but this text yields only {found} pieces that the tokenizer lacks: "
            "lower it, or give more text."
        )


def _still_true(tokenizer: Tokenizer) -> dict[str, bytes]:
    """The companions that say nothing of the vocabulary."""
    return {name: data for name, data in tokenizer.companions.items() if name not in STALE}


def _copy(proto: Any) -> Any:
    copy = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]
    copy.CopyFrom(proto)
    return copy
