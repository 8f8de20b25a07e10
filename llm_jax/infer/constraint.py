"""Text that must have a form: a JSON schema, a regular expression or a grammar, by llguidance.

A constraint says before each token which tokens may come next. It works on the bytes that tokens
stand for, so that a character may come in several tokens. Needs the extra `constrain`.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from llm_jax.config import UserError
from llm_jax.config.extras import require_packages
from llm_jax.data.tokenizers import Tokenizer

WHITESPACE = " ?"
"""Between the parts of JSON: at most one space. With any amount, as JSON allows it, a weak model
writes spaces to the end of its room."""

UTF_8 = (*range(0xC0), *range(0xC2, 0xF5))
"""Bytes that occur in UTF-8."""


class ConstraintError(UserError):
    """A text cannot go on under its constraint."""


class ConstraintState:
    """Where one text stands in its constraint. It is used by one thread at a time.

    Attributes:
      done: whether the text ends here: nothing but a token that ends it may follow, or has come.
    """

    def __init__(self, matcher: Any, vocab_size: int) -> None:
        self._matcher, self._vocab_size = matcher, vocab_size
        self.done = False
        self._look()

    def allowed(self) -> np.ndarray:
        """bool (V,), V being the tokenizer's `vocab_size`: the tokens that may come next. Those
        that end a text are among them where the text may end."""
        return self._allowed_V

    def advance(self, token: int) -> None:
        """Takes the next token.

        Raises:
          ConstraintError: it is not allowed, or the grammar has become too complex.
        """
        if not self._matcher.consume_token(token):
            raise ConstraintError(f"Token {token} breaks the constraint: {_why(self._matcher)}.")
        self._look()

    @property
    def met(self) -> bool:
        """Whether the text so far is complete."""
        accepting: bool = self._matcher.is_accepting()
        return accepting

    def _look(self) -> None:
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        mask_V = np.unpackbits(bits, count=self._vocab_size, bitorder="little")
        self._allowed_V = mask_V.astype(bool)
        self.done = self._matcher.is_stopped()
        if self._matcher.is_error() or (self.done and not self.met):
            raise ConstraintError(f"The constraint cannot be followed: {_why(self._matcher)}.")


class Constraint:
    """A compiled constraint, which any number of texts may share.

    Args:
      grammar: as llguidance reads it.
      tokenizer: of the model.
      what: how errors name it, such as "The JSON schema".
      stop_ids: tokens that end a text; empty: the tokenizer's `eos_id`.

    Raises:
      UserError: the grammar is wrong, no text can meet it, or the tokenizer has not all bytes.
    """

    def __init__(
        self, grammar: str, tokenizer: Tokenizer, what: str, stop_ids: tuple[int, ...] = ()
    ) -> None:
        from llguidance import LLMatcher

        self.vocab_size = tokenizer.vocab_size
        tokens = _tokens(tokenizer, stop_ids or (tokenizer.eos_id,))
        self._matcher = LLMatcher(tokens, grammar, log_level=0)
        if self._matcher.is_error():
            raise UserError(f"{what} cannot be used: {_why(self._matcher)}.")
        try:
            self.start()
        except UserError:
            raise UserError(f"{what} cannot be met by any text of the model's tokens.") from None

    def start(self) -> ConstraintState:
        """The state before the first token."""
        return ConstraintState(self._matcher.deep_copy(), self.vocab_size)


def json_schema_constraint(
    schema: Mapping[str, Any] | str | bool, tokenizer: Tokenizer, stop_ids: tuple[int, ...] = ()
) -> Constraint:
    """Text that is JSON and valid under `schema`, with at most one space between its parts.

    Args:
      schema: a JSON Schema, or its JSON text. `{"type": "object"}` is any object.

    Raises:
      UserError: it is not a JSON Schema, has keywords that are not supported, or cannot be met.
    """
    require_packages("A JSON schema", "llguidance")
    from llguidance import LLMatcher

    if isinstance(schema, str):
        try:
            schema = json.loads(schema)
        except (ValueError, RecursionError) as error:
            raise UserError(f"The JSON schema is not JSON ({error}).") from None
    if schema is False:
        raise UserError("The JSON schema is false, which no text can meet: give another.")
    if schema is True:
        schema = {}
    if not isinstance(schema, Mapping):
        raise UserError("The JSON schema is neither an object nor true or false: give a schema.")
    try:
        # The options come last: what a schema says of them under x-guidance has no effect.
        grammar = LLMatcher.grammar_from_json_schema(
            json.dumps(schema), overrides={"whitespace_pattern": WHITESPACE, "lenient": False}
        )
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(f"The JSON schema cannot be used: {_sentence(str(error))}.") from None
    return Constraint(grammar, tokenizer, "The JSON schema", stop_ids)


def regex_constraint(
    pattern: str, tokenizer: Tokenizer, stop_ids: tuple[int, ...] = ()
) -> Constraint:
    """Text that `pattern` matches from its beginning to its end, in the syntax of Rust's regex
    without look-around.

    Raises:
      UserError: it is not a regular expression, or no text matches it.
    """
    require_packages("A regular expression", "llguidance")
    from llguidance import LLMatcher

    grammar = LLMatcher.grammar_from_regex(pattern)
    return Constraint(grammar, tokenizer, "The regular expression", stop_ids)


def grammar_constraint(
    grammar: str, tokenizer: Tokenizer, stop_ids: tuple[int, ...] = ()
) -> Constraint:
    """Text that a Lark grammar derives from its rule `start`.

    Raises:
      UserError: it is not a Lark grammar, or no text meets it.
    """
    require_packages("A grammar", "llguidance")
    from llguidance import LLMatcher

    return Constraint(LLMatcher.grammar_from_lark(grammar), tokenizer, "The grammar", stop_ids)


def constraint_of(
    tokenizer: Tokenizer,
    stop_ids: tuple[int, ...] = (),
    *,
    schema: Mapping[str, Any] | str | bool | None = None,
    regex: str | None = None,
    grammar: str | None = None,
) -> Constraint | None:
    """The constraint of that of `schema`, `regex` and `grammar` which is given; None: none is.

    Raises:
      UserError: more than one is given, or as `json_schema_constraint`, `regex_constraint` and
        `grammar_constraint` do.
    """
    if sum(one is not None for one in (schema, regex, grammar)) > 1:
        raise UserError("A text has one form: give a schema, a regular expression or a grammar.")
    if schema is not None:
        return json_schema_constraint(schema, tokenizer, stop_ids)
    if regex is not None:
        return regex_constraint(regex, tokenizer, stop_ids)
    return None if grammar is None else grammar_constraint(grammar, tokenizer, stop_ids)


@functools.lru_cache(maxsize=8)
def _tokens(tokenizer: Tokenizer, stop_ids: tuple[int, ...]) -> Any:
    """llguidance's own tokenizer: the bytes of each token."""
    from llguidance import LLTokenizer, TokenizerWrapper

    vocabulary = _Vocabulary(tokenizer, stop_ids[0])
    have = set(vocabulary.tokens)
    missing = [byte for byte in UTF_8 if bytes([byte]) not in have]
    if missing:
        raise UserError(
            f"The tokenizer has no token for {len(missing)} of the bytes of UTF-8, such as "
            f"0x{missing[0]:02X}, so not every text can be made: constrained output needs a "
            "tokenizer with all bytes."
        )
    return LLTokenizer(
        TokenizerWrapper(vocabulary),
        n_vocab=tokenizer.vocab_size,
        eos_token=list(stop_ids),
    )


class _Vocabulary:
    """What llguidance asks a tokenizer for. A token without bytes is special: a grammar reaches it
    only by name."""

    def __init__(self, tokenizer: Tokenizer, end: int) -> None:
        self._tokenizer = tokenizer
        self.eos_token_id, self.bos_token_id = end, tokenizer.bos_id
        self.tokens = [tokenizer.bytes_of(i) for i in range(tokenizer.vocab_size)]
        self.special_token_ids = [i for i, text in enumerate(self.tokens) if not text]
        names = tokenizer.pieces(self.special_token_ids)
        for i, name in zip(self.special_token_ids, names, strict=True):
            self.tokens[i] = name.encode()

    def __call__(self, text: str) -> list[int]:
        return self._tokenizer.encode(text)


def _why(matcher: Any) -> str:
    return _sentence(matcher.get_error())


def _sentence(error: str) -> str:
    """The line of an error of llguidance that says what is wrong; a parser's is the last."""
    lines = error.strip().splitlines() or ["of an unknown reason"]
    said = next((line for line in lines if line.startswith("error: ")), lines[0])
    return said.removeprefix("error: ").rstrip(".: ")
