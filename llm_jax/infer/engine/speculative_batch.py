"""An engine's batch that decodes speculatively.

Greedy texts, and texts whose drafts are looked up, are token for token those of plain decoding, but
for the rounding of logits. Sampled texts with a draft model have the same distribution. A text
with penalties, biases or a constraint has no drafts, and those beside it have theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import jax
import numpy as np

from llm_jax.config import ModelConfig, RecurrentConfig, UserError, generative_of
from llm_jax.data.tokenizers import Tokenizer
from llm_jax.infer.decoder import Params, compute_for_inference
from llm_jax.infer.engine.arrays import Made, Memory, bytes_of
from llm_jax.infer.engine.batch import Batch
from llm_jax.infer.engine.cache import slack
from llm_jax.infer.engine.programs import Shapes
from llm_jax.infer.engine.request import Kind
from llm_jax.infer.engine.settings import EngineSettings
from llm_jax.infer.engine.slots import Slot
from llm_jax.infer.engine.speculate import SpeculativePrograms, speculative_for
from llm_jax.infer.engine.weights import engine_params, untied

if TYPE_CHECKING:
    from llm_jax.language_model import LanguageModel

Generative = ModelConfig | RecurrentConfig
DRAFTS = 4
"""Tokens that a draft model drafts at a time, unless told otherwise."""


class SpeculativeBatch(Batch):
    """A batch that decodes by rounds.

    Args:
      draft_params: of the draft model, as of `engine_params`.
      draft_slack: how many tokens its cache may lose, as of `cache.slack`.
    """

    _programs: SpeculativePrograms

    def __init__(
        self,
        programs: SpeculativePrograms,
        params: Params,
        draft_params: Params | None = None,
        draft_slack: int | None = None,
    ) -> None:
        super().__init__(programs, params)
        self._draft_params, self._draft_slack = draft_params, draft_slack
        self._behind = programs.drafts
        self._draft_cache = None if programs.draft is None else programs.draft.cache()
        self._draft_has = [0] * self._slots
        """Tokens of each slot's text that the draft's cache has."""

    @property
    def memory(self) -> Memory:
        main, beside = super().memory, bytes_of(self._draft_params)
        return Memory(main.parameters + beside, main.cache + bytes_of(self._draft_cache))

    def warm_up(self) -> None:
        super().warm_up()
        if self._programs.draft is not None:
            for size in self._programs.shapes.pieces:
                self._draft_piece(self._slots, size, 0, [])
            numbers = np.int32(0), np.int32(0)
            self._draft_cache = self._programs.copy(self._draft_cache, *numbers)

    def copy(self, source: Slot, target: Slot) -> None:
        super().copy(source, target)
        if self._draft_params is not None:
            numbers = np.int32(source.number), np.int32(target.number)
            self._draft_cache = self._programs.copy(self._draft_cache, *numbers)
            self._draft_has[target.number] = self._draft_has[source.number]

    def admitted(self, slot: Slot) -> None:
        super().admitted(slot)
        kept = min(self._draft_has[slot.number], slot.have)
        lost = self._draft_slack is not None and slot.reached - kept > self._draft_slack
        self._draft_has[slot.number] = 0 if lost else kept

    def _decode(
        self, slots: Sequence[Slot], steps: int, top: bool, kind: Kind
    ) -> tuple[Made, np.ndarray]:
        text_SM = np.zeros((self._slots, self._programs.shapes.max_len), np.int32)
        shaped_S = np.zeros(self._slots, bool)
        for slot in slots:
            shaped_S[slot.number] = slot.request.kind == "shaped"
            if self._draft_params is None:
                text_SM[slot.number, : len(slot.tokens)] = slot.tokens
            else:
                self._catch_up(slot)
        with self._compiling():
            done = self._programs.speculate(
                self.params, self._cache, self._draft_params, self._draft_cache,
                self._decoding(slots), text_SM, shaped_S,
                self._shaping if kind == "shaped" else None,
                np.int32(steps), np.bool_(top), kind=kind,
            )  # fmt: skip
        self._cache, self._draft_cache = done.cache, done.draft_cache
        if done.shaping is not None:
            self._shaping = done.shaping
        made, count_S, drafted, accepted = jax.device_get(
            (_wanted(done.made, top), done.count_S, done.drafted, done.accepted)
        )
        self.drafted += int(drafted)
        self.accepted += int(accepted)
        for slot in slots:
            self._draft_has[slot.number] = slot.have + int(count_S[slot.number])
        return made, count_S

    def _catch_up(self, slot: Slot) -> None:
        """Has the draft read what is new in a text since its last round: its prompt."""
        number, sizes = slot.number, self._programs.shapes.pieces
        while (left := slot.have - self._draft_has[number]) > 0:
            size = next((size for size in sizes if size >= left), sizes[-1])
            start = self._draft_has[number]
            piece = slot.tokens[start : min(start + size, slot.have)]
            self._draft_piece(number, size, start, piece)
            self._draft_has[number] += len(piece)

    def _draft_piece(self, number: int, size: int, start: int, piece: Sequence[int]) -> None:
        token_RT = np.zeros((1, size), np.int32)
        token_RT[0, : len(piece)] = piece
        columns = (np.array([one], np.int32) for one in (number, start, len(piece)))
        with self._compiling():
            self._draft_cache = self._programs.draft_prefill(
                self._draft_params, self._draft_cache, token_RT, *columns
            )


def check_tokenizers(model: Tokenizer, draft: Tokenizer) -> None:
    """Raises `UserError` unless both are the same."""
    if model.sha256 != draft.sha256:
        raise UserError(
            f"The draft's tokenizer ({draft.vocab_size} tokens) is not the model's "
            f"({model.vocab_size}): a draft must be of the same tokenizer."
        )


def speculation(
    shapes: Shapes,
    params: Params,
    settings: EngineSettings,
    draft: LanguageModel | None,
    frees: bool = False,
) -> tuple[SpeculativePrograms, SpeculativeBatch]:
    """What an engine works with instead of plain programs and a plain batch.

    Args:
      params: as of `engine_params`.
      frees: empties the draft's `params`, as of `engine_params`.

    Raises:
      UserError: as `check_speculation` does.
    """
    drafts = settings.speculate or DRAFTS
    smaller = None if draft is None else generative_of(draft.config, "a draft")
    check_speculation(shapes.model, smaller, settings, shapes.max_len)
    if draft is None or smaller is None:
        programs = speculative_for(shapes, drafts, None)
        return programs, SpeculativeBatch(programs, params)
    compute, its = draft.run.compute, slack(smaller, shapes.max_len, shapes.chunk)
    beside = Shapes(
        untied(smaller), compute_for_inference(compute), shapes.vocab_size,
        shapes.slots, shapes.max_len, shapes.chunk, shapes.mesh,
    )  # fmt: skip
    programs = speculative_for(shapes, drafts, beside)
    weights = engine_params(
        draft.params, smaller, compute, shapes.mesh, settings.weights, frees=frees
    )
    return programs, SpeculativeBatch(programs, params, weights, its)


def check_speculation(
    model: Generative, draft: Generative | None, settings: EngineSettings, max_len: int
) -> None:
    """Checks what needs no weights.

    Args:
      draft: the model that drafts; None: drafts are looked up.
      max_len: most tokens of a text, with its prompt.

    Raises:
      UserError: the model cannot take back tokens, or the draft does not fit it.
    """
    drafts, chunk = settings.speculate or DRAFTS, min(settings.prefill_chunk, max_len)
    _check_drafts(slack(model, max_len, chunk), drafts, chunk, "The model")
    if draft is None:
        return
    _check_drafts(slack(draft, max_len, chunk), drafts, chunk, "The draft")
    if draft.max_seq_len < max_len:
        raise UserError(
            f"The draft's context is {draft.max_seq_len} tokens, and max_len is {max_len}: set "
            f"max_len to {draft.max_seq_len}, or take another draft."
        )


def _check_drafts(lost: int | None, drafts: int, chunk: int, what: str) -> None:
    """Raises `UserError` if a cache of the slack `lost` cannot take back `drafts` tokens."""
    if lost is not None and lost <= 0:
        raise UserError(
            f"{what} keeps a state from which no token can be taken back (it is recurrent, or its "
            "rotary positions change with the length): leave speculate and the draft out."
        )
    if drafts >= chunk:
        raise UserError(
            f"speculate is {drafts}, which must be less than prefill_chunk, {chunk}: lower it."
        )


def _wanted(made: Made, top: bool) -> Made:
    """`made` without the log-probabilities, if they are not asked for."""
    if top:
        return made
    return made._replace(log_prob_Sn=None, top_id_SnA=None, top_log_prob_SnA=None)
