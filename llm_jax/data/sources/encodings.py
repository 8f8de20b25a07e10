"""The encoding of a text: what its byte-order mark says, else what the user says."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from dataclasses import dataclass

from llm_jax.config import UserError
from llm_jax.data.sources.left_out import NOT_TEXT, Unusable

# UTF-32's mark begins like UTF-16's, so it comes first.
MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
NUL = "NUL bytes: binary, or UTF-16 without a byte-order mark"
ISO_2022_JP = "\x1b$"
"""Begins two-byte characters in this 7-bit encoding, whose bytes are valid ASCII as well."""


@dataclass(frozen=True)
class Encoding:
    """How one file is decoded.

    Attributes:
      codec: Python's name of the encoding.
      named: the user's name, which the reasons of losses use.
      marked: whether a byte-order mark decided.
    """

    codec: str
    named: str
    marked: bool = False

    @property
    def wide(self) -> bool:
        """Whether a character takes 2 or 4 bytes, so that lines cannot be cut as bytes."""
        return self.codec.startswith(("utf-16", "utf-32"))

    def decode(self, raw: bytes) -> str:
        """The text of `raw`; raises `Unusable` if any part of it is not valid."""
        try:
            text = raw.decode(self.codec)
        except UnicodeDecodeError as error:
            before = raw[: error.start].replace(b"\r\n", b"\n").replace(b"\r", b"\n")
            line = None if self.wide else before.count(b"\n") + 1
            raise self._unusable(f"bytes {raw[error.start : error.end].hex(' ')}", line) from None
        except UnicodeError as error:
            raise self._unusable(str(error)) from None
        if self._is_utf8(raw):
            raise self._unusable("its bytes are UTF-8")
        if b"\x1b" in raw and ISO_2022_JP in text:
            raise self._unusable("it has escape sequences of iso2022_jp")
        if "\0" in text:
            raise Unusable(NOT_TEXT, NUL)
        return text

    def refuse_nul(self, head: bytes) -> None:
        """Raises `Unusable` if bytes at a file's beginning show that it is not text."""
        if b"\0" in head and not self.wide:
            raise Unusable(NOT_TEXT, NUL)

    def refuse_utf8(self, head: bytes) -> None:
        """Raises `Unusable` if bytes at a file's beginning are UTF-8, and this is another."""
        if self.codec.startswith("utf") or head.isascii():
            return
        try:
            codecs.getincrementaldecoder("utf-8")().decode(head)
        except UnicodeDecodeError:
            return
        raise self._unusable("its bytes are UTF-8")

    def _is_utf8(self, raw: bytes) -> bool:
        """Whether `raw` is UTF-8 although another encoding was named, which would give wrong
        characters. Text in another encoding is hardly ever valid UTF-8."""
        if self.codec.startswith("utf") or raw.isascii():
            return False
        try:
            raw.decode()
        except UnicodeDecodeError:
            return False
        return True

    def to_utf8(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """The same text in UTF-8, piece by piece."""
        decoder = codecs.getincrementaldecoder(self.codec)()
        try:
            for piece in pieces:
                yield decoder.decode(piece).encode()
            yield decoder.decode(b"", final=True).encode()
        except UnicodeError as error:
            raise self._unusable(str(error)) from None

    def _unusable(self, detail: str, line: int | None = None) -> Unusable:
        if self.marked:
            detail = f"its byte-order mark says {self.codec.removesuffix('-sig')}; {detail}"
        return Unusable(f"not {self.named}", detail, line)


def canonical(named: str) -> str:
    """Python's name of the encoding `named`; raises `UserError` if there is none."""
    try:
        "".encode(named)
        return codecs.lookup(named).name
    except (LookupError, ValueError):
        raise UserError(
            f"--encoding is {named!r}, which Python does not know: try utf-8 or cp932."
        ) from None


def encoding_of(head: bytes, named: str) -> Encoding:
    """The encoding of a file that begins with `head`: by its mark, else the one `named`.

    Raises:
      Unusable: `named` needs a byte-order mark, and there is none.
    """
    for mark, codec in MARKS.items():
        if head.startswith(mark):
            return Encoding(codec, named, marked=True)
    codec = canonical(named)
    if codec in ("utf-16", "utf-32") and head:
        detail = f"no byte-order mark: give {codec}-le or {codec}-be"
        raise Unusable(f"not {named}", detail)
    return Encoding(codec, named)
