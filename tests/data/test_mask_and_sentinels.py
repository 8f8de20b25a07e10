"""Which tokens stand for what is hidden, by kind of tokenizer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import AddedToken, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Library

from llm_jax.config import ConfigError, EncoderDecoderConfig
from llm_jax.data.tokenizers import Tokenizer
from llm_jax.data.tokenizers.mask import mask_id, mask_sentence
from llm_jax.data.tokenizers.sentinels import sentinel_ids, sentinel_sentence, start_id
from llm_jax.data.tokenizers.training import train

TEXT = ["def main(argument): return argument + 1, and one more line of it\n" * 20]
T5 = EncoderDecoderConfig(
    vocab_size=1000, num_layers=1, num_decoder_layers=1, d_model=8, num_heads=1, head_dim=8,
    d_ff=8, max_seq_len=8, sentinels=10,
)  # fmt: skip


def word_piece(folder: Path, special: list[str]) -> Tokenizer:
    library = Library(models.WordPiece(unk_token="[UNK]"))
    library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    library.decoder = decoders.WordPiece()
    library.train_from_iterator(
        TEXT,
        trainers.WordPieceTrainer(vocab_size=90, special_tokens=special, show_progress=False),
    )
    library.save(str(folder / "tokenizer.json"))
    roles = {"cls_token": "[CLS]", "sep_token": "[SEP]"}
    (folder / "special_tokens_map.json").write_text(json.dumps(roles))
    return Tokenizer.load(folder)


def test_the_mask_is_the_tokenizers_own(tmp_path: Path) -> None:
    tokenizer = word_piece(tmp_path, ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    assert mask_id(tokenizer) == 4
    assert mask_sentence(tokenizer) == "hidden tokens become '[MASK]', id 4"


def test_a_token_that_text_never_becomes_takes_its_place() -> None:
    pieces = train(TEXT, vocab_size=280)
    assert pieces.pieces([mask_id(pieces)]) == ["<unk>"]
    assert mask_sentence(pieces).endswith("the tokenizer has no mask token")
    byte_level = train(TEXT, vocab_size=280, kind="byte-level")
    assert byte_level.pieces([mask_id(byte_level)]) == ["<pad>"]


def test_without_any_it_is_refused() -> None:
    class Bare:
        bos_id = eos_id = 0
        token_bytes = train(TEXT, vocab_size=280).token_bytes[:1]

        def pieces(self, ids: object) -> list[str]:
            return ["</s>"]

    with pytest.raises(ConfigError, match=r"add a special token \[MASK\]"):
        mask_id(Bare())  # type: ignore[arg-type]


def test_sentinels_are_the_ids_after_the_tokenizers() -> None:
    tokenizer = train(TEXT, vocab_size=280)
    assert sentinel_ids(tokenizer, T5).tolist() == list(range(289, 279, -1))
    assert "10 sentinels, ids 289 down to 280" in sentinel_sentence(tokenizer, T5)
    assert start_id(tokenizer, T5) == tokenizer.pad_id == 3


def test_sentinels_are_the_tokenizers_own(tmp_path: Path) -> None:
    """Of T5's tokenizer, which begins no document and has its sentinels after the pieces."""
    made = train(TEXT, vocab_size=280, kind="byte-level")
    library = Library.from_str(made.content.decode())
    names = [f"<extra_id_{i}>" for i in reversed(range(12))]
    library.add_special_tokens([AddedToken(name, special=True) for name in names])
    library.save(str(tmp_path / "tokenizer.json"))
    settings = {"eos_token": "</s>", "pad_token": "<pad>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.vocab_size == 292
    assert sentinel_ids(tokenizer, T5).tolist() == list(range(291, 279, -1))
    assert tokenizer.marks.shared
