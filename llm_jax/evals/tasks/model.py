"""Our model as lm-eval asks it: log-likelihoods from the scorer, texts from the engine."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lm_eval.api.model import TemplateLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from llm_jax.config import UserError
from llm_jax.evals.tasks import answers
from llm_jax.infer.chat_template import (
    ChatTemplate,
    ConversationIds,
    from_tokenizer,
    special_tokens,
)
from llm_jax.infer.scoring import Pair, Scored, Scorer

if TYPE_CHECKING:
    from llm_jax.infer.engine.engine import Engine
    from llm_jax.language_model import LanguageModel


class HarnessModel(TemplateLM):
    """A model of ours behind lm-eval's interface.

    Args:
      chat: its prompts are conversations, in which special tokens are spelled out.

    Attributes:
      truncated: task → requests that were longer than the context and lost their beginning.
      joined: task → requests of which one token holds the end of the context and the beginning of
        the answer: what is scored after the context is not quite the answer, as in lm-eval.
      shortened: task → answers that may be shorter than the task allows, for the same reason.
    """

    def __init__(
        self,
        model: LanguageModel,
        *,
        scorer: Scorer | None = None,
        engine: Engine | None = None,
        seed: int = 0,
        chat: bool = False,
    ) -> None:
        super().__init__()
        self.own = model
        self.truncated: Counter[str] = Counter()
        self.joined: Counter[str] = Counter()
        self.shortened: Counter[str] = Counter()
        self._tokenizer, self._seed = model.tokenizer, seed
        self._ids = ConversationIds(model.tokenizer) if chat else model.tokenizer.encode
        self._scorer, self._engine = scorer, engine
        # A scorer that is given may have been made with the parameters of an earlier step.
        self._params = None if scorer is None else model.params
        self._asking: list[str] = []
        self._joins: set[tuple[str, str]] = set()

    @property
    def scorer(self) -> Scorer:
        if self._scorer is None:
            self._scorer = Scorer(
                self.own.run, self.own.params, vocab_size=self._tokenizer.vocab_size
            )
        return self._scorer

    def _score(self, pairs: Sequence[Pair]) -> list[Scored]:
        return self.scorer.score(pairs, self._params)

    @property
    def max_length(self) -> int:
        return self.own.config.max_seq_len

    @property
    def eot_token_id(self) -> int:
        return self._tokenizer.eos_id

    @property
    def prefix_token_id(self) -> int:
        return self._tokenizer.bos_id

    @property
    def tokenizer_name(self) -> str:
        return self._tokenizer.sha256

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **kwargs: Any
    ) -> list[int]:
        """Ids of a text. `<s>` comes first unless the text begins with it or it is not wanted."""
        ids = self._ids(string)
        begins = add_special_tokens if add_special_tokens is not None else ids[:1] != [self._begin]
        return [self._begin, *ids] if begins else ids

    @property
    def _begin(self) -> int:
        return self._tokenizer.bos_id

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Both encoded together, and cut after as many ids as the context alone has. Space at its
        end goes to the continuation."""
        text, bare = context + continuation, context.rstrip()
        whole, alone = self.tok_encode(text), self.tok_encode(bare)
        if whole[: len(alone)] != alone:
            self._joins.add((context, continuation))
        return alone, whole[len(alone) :]

    def loglikelihood(self, requests: Any, disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        self._asking = [request.task_name for request in requests]
        found: list[tuple[float, bool]] = super().loglikelihood(requests, disable_tqdm=True)
        return found

    def _loglikelihood_tokens(self, requests: Any, **kwargs: Any) -> list[tuple[float, bool]]:
        for name, ((context, continuation), _, ids) in zip(self._asking, requests, strict=True):
            if not ids:
                raise UserError(
                    f"Task {name!r} has an answer without a token of its own ({continuation!r} "
                    f"after …{context[-20:]!r}): it cannot be scored with this tokenizer."
                )
        pairs = [(context, continuation) for _, context, continuation in requests]
        for name, (texts, context, continuation) in zip(self._asking, requests, strict=True):
            self.joined[name] += texts in self._joins
            self.truncated[name] += len(context) + len(continuation) > self.max_length + 1
        return [(one.log_prob, one.greedy) for one in self._score(pairs)]

    def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = True) -> list[float]:
        """The log-likelihood of whole texts, in windows as long as the context. Each token is
        predicted once; the last window reaches back, so that it is as long as the others."""
        owners: list[int] = []
        pairs: list[tuple[Sequence[int], Sequence[int]]] = []
        for number, request in enumerate(requests):
            ids = self.tok_encode(request.args[0])
            for window in get_rolling_token_windows(ids, self._begin, self.max_length, 1):
                pairs.append(make_disjoint_window(window))
                owners.append(number)
        totals = [0.0] * len(requests)
        for owner, scored in zip(owners, self._score(pairs), strict=True):
            totals[owner] += scored.log_prob
        return totals

    def generate_until(self, requests: Any, disable_tqdm: bool = True) -> list[str]:
        with answers.running(self.own, self._engine) as engine:
            return answers.generate(
                engine,
                [(self.tok_encode(text), wanted) for text, wanted in (r.args for r in requests)],
                [request.task_name for request in requests],
                model=self.own,
                seed=self._seed,
                truncated=self.truncated,
                shortened=self.shortened,
            )

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        return self._template.source if chat_template and self._template else None

    @functools.cached_property
    def _template(self) -> ChatTemplate | None:
        return from_tokenizer(self._tokenizer)

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        if self._template is None:
            raise UserError(
                "--chat-template: the model's tokenizer has no chat template. Leave the flag out."
            )
        tokens = special_tokens(self._tokenizer)
        return self._template.text(chat_history, tokens, add_prompt=add_generation_prompt)
