"""The slots of an engine: who has which, and what text each still holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from llm_jax.config import UserError
from llm_jax.infer.engine.request import Request, Ticket, TokenOut

if TYPE_CHECKING:
    from llm_jax.infer.constraint import ConstraintState

OnToken = Callable[[Ticket, TokenOut | None], None]


def told(on_token: OnToken | None, ticket: Ticket, out: TokenOut | None) -> UserError | None:
    """Calls a request's listener. One that fails ends its own request, not the engine: the error
    that the request gets then."""
    if on_token is not None:
        try:
            on_token(ticket, out)
        except Exception as error:
            return UserError(f"on_token has failed ({type(error).__name__}: {error}).")
    return None


@dataclass
class Slot:
    """One row of the cache.

    Attributes:
      tokens: the text; the cache has the first `have` of them, also when the slot is free.
      reached: places up to which the cache has been written, by this text or an earlier one that it
        goes on from: where a ring is used again, or a state is kept, they replace what was before.
      ticket: whose text it is; None: the slot is free.
      used: number of the admission that took it last.
    """

    number: int
    tokens: list[int] = field(default_factory=list)
    have: int = 0
    reached: int = 0
    ticket: Ticket | None = None
    on_token: OnToken | None = None
    constraint: ConstraintState | None = None
    used: int = 0

    @property
    def request(self) -> Request:
        """Of a slot that is taken."""
        assert self.ticket is not None
        return self.ticket.request

    @property
    def prompt_left(self) -> int:
        """Tokens of the prompt that are still to be computed. The last one is not among them: a
        step of decoding begins with it."""
        if self.ticket is None:
            return 0
        return max(0, len(self.ticket.request.prompt) - 1 - self.have)

    @property
    def decodes(self) -> bool:
        return self.ticket is not None and self.prompt_left == 0

    @property
    def left(self) -> int:
        """New tokens that may still be made."""
        assert self.ticket is not None
        return self.request.max_tokens - len(self.ticket.tokens)


class Place(NamedTuple):
    """Where a new text goes.

    Attributes:
      slot: the free slot.
      source: the slot whose first `shared` tokens it can use; None: it is computed anew.
    """

    slot: Slot
    source: Slot | None
    shared: int


WORTH_COPYING = 16
"""Shared tokens from which a slot is copied, over what a free slot has anyway."""


def place_for(
    prompt: Sequence[int], slots: Sequence[Slot], slack: int | None, reuse: bool
) -> Place | None:
    """The free slot for a prompt, and the slot with the longest prefix of it; None: all are taken.

    Args:
      slack: how many of its last tokens a slot may lose (`cache.slack`).
      reuse: False: every token must be computed.
    """
    free = [slot for slot in slots if slot.ticket is None]
    if not free:
        return None
    oldest = min(free, key=lambda slot: slot.used)
    if not reuse:
        return Place(oldest, None, 0)

    def shared(slot: Slot) -> int:
        count = _common(slot.tokens, prompt, min(slot.have, len(prompt) - 1))
        lost = max(slot.have, slot.reached) - count
        return 0 if slack is not None and lost > slack else count

    own = max(free, key=lambda slot: (shared(slot), -slot.used))
    best = max(slots, key=shared)
    have = shared(own)
    if shared(best) >= have + WORTH_COPYING:
        spare = [slot for slot in free if slot is not best]
        target = min(spare, key=lambda slot: slot.used)
        return Place(target, best, shared(best))
    return Place(own, own, have) if have else Place(oldest, None, 0)


def _common(a: Sequence[int], b: Sequence[int], most: int) -> int:
    """Length of the common prefix, up to `most`."""
    if list(a[:most]) == list(b[:most]):
        return most
    return next(i for i in range(most) if a[i] != b[i])
