"""Tokenizers: SentencePiece models and `tokenizer.json` files behind one interface."""

from llm_jax.data.tokenizers.base import Marks as Marks
from llm_jax.data.tokenizers.base import Tokenizer as Tokenizer
from llm_jax.data.tokenizers.files import has_tokenizer as has_tokenizer
from llm_jax.data.tokenizers.files import load_tokenizer as load_tokenizer
