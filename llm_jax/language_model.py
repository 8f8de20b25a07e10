"""A model with its tokenizer: what a notebook and an evaluation of your own work with."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from llm_jax.config import (
    Architecture,
    RunConfig,
    SourceToTarget,
    UserError,
    generative_of,
)
from llm_jax.config.architecture import has_head
from llm_jax.data.tokenizers import Tokenizer

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from llm_jax.convert.describe import Described
    from llm_jax.evals.perplexity import Evaluator
    from llm_jax.evals.score import Score
    from llm_jax.infer.device_split import Split
    from llm_jax.infer.engine.engine import Engine


def load_model(
    path: str | Path,
    step: int | None = None,
    *,
    tokenizer: str | Path | None = None,
    verify: bool = True,
    trust_code: bool = False,
    split: Split | None = None,
) -> LanguageModel:
    """The model in a run's folder, or in a Hugging Face folder with safetensors.

    Args:
      path: the folder.
      step: checkpoint of a run; None: the newest.
      tokenizer: tokenizer file or folder for a Hugging Face folder; None: its own.
      verify: check a run's files against their checksums.
      trust_code: run the code that a run's `model.kind` names, if it is not a part of ours.
      split: how it is split over this process's devices, each of which reads its part only; None:
        one device.

    Raises:
      UserError: there is no model, or its files cannot be used.
    """
    from llm_jax.convert.describe import describe
    from llm_jax.runs.model_places import Place, is_hugging_face

    folder = Path(path)
    if is_hugging_face(folder):
        if step is not None:
            raise UserError(f"{str(path)!r} is not a run: it has no step {step}. Leave step out.")
        return load_described(describe(Place(folder.name, folder, None), tokenizer), split=split)
    if tokenizer is not None:
        raise UserError(f"{str(path)!r} is a run, which has its tokenizer: leave tokenizer out.")
    return _of_run(folder, step, verify=verify, trust_code=trust_code, split=split)


def load_described(
    said: Described,
    *,
    verify: bool = True,
    trust_code: bool = False,
    split: Split | None = None,
    beside: LanguageModel | None = None,
) -> LanguageModel:
    """A model whose folder has been looked at.

    Args:
      verify, trust_code, split: as of `load_model`.
      beside: a model loaded with `split`, on whose devices this one is to be.

    Raises:
      UserError: as of `load_model`.
    """
    place = said.place
    if split and beside is not None:
        mesh = beside.mesh
        split = None if mesh is None else replace(split, tensor=mesh.shape["tensor"])
    if place.is_run:
        trust: dict[str, Any] = {"verify": verify, "trust_code": trust_code}
        return _of_run(place.folder, place.step, split=split, **trust)
    import jax

    from llm_jax.convert.hf_read import read_with

    mesh = split.mesh(said.run) if split else None
    _, params = read_with(place.folder, said.tokenizer)
    if split and mesh is not None:  # from the host's memory: no device has all of them
        params = jax.device_put(params, split.places(said.run))
    return LanguageModel(said.run, params, said.tokenizer, stop_ids=said.stop_ids, mesh=mesh)


def _of_run(
    folder: Path, step: int | None, *, verify: bool, trust_code: bool, split: Split | None
) -> LanguageModel:
    from llm_jax.convert.kept_files import stop_ids
    from llm_jax.train.load import load_run

    where = split.places if split else None
    run = load_run(folder, step, verify=verify, trust_code=trust_code, where=where)
    ends = stop_ids(folder, run.tokenizer)
    mesh = split.mesh(run.config) if split else None
    return LanguageModel(run.config, run.params, run.tokenizer, run.step, ends, mesh)


@dataclass(frozen=True, eq=False)
class LanguageModel:
    """A model with its tokenizer, as `load_model` returns it.

    Attributes:
      run: config of the run; of a Hugging Face folder, its architecture and the defaults of
        everything else.
      params: nested dict of float32 arrays.
      tokenizer: the tokenizer that the model was trained with.
      step: of the checkpoint; None for a Hugging Face folder.
      stop_ids: ids that end a generated text; empty: that of `</s>`.
      mesh: devices that its parameters are on, and that its engine uses; None: one.
    """

    run: RunConfig
    params: dict[str, Any]
    tokenizer: Tokenizer
    step: int | None = None
    stop_ids: tuple[int, ...] = ()
    mesh: Mesh | None = None

    @property
    def config(self) -> Architecture:
        """The architecture."""
        return self.run.model

    def tokens(self, text: str) -> list[int]:
        """Token ids of a document that begins with `text`: `<s>`, then those of the text."""
        return [self.tokenizer.bos_id, *self.tokenizer.encode(text)]

    def logits(self, text: str | Sequence[int]) -> np.ndarray:
        """Logits after each token, computed in float32.

        Args:
          text: text, which `tokens` turns into ids, or T token ids.

        Returns:
          (T, V) float32, where V is `config.vocab_size`.

        Raises:
          UserError: there is no token, or there are more than the model's context, or it is an
            encoder-decoder.
        """
        if isinstance(self.config, SourceToTarget):
            raise UserError(
                f"model.kind is {self.config.kind!r}, whose logits are of a target and not of its "
                "text: `llm-jax generate` makes targets."
            )
        if has_head(self.config):
            raise UserError(
                f"The model's head is {self.run.objective!r}, which predicts no tokens: "
                "`llm-jax predict` and `llm-jax embed` use it."
            )
        from llm_jax.convert.parity import our_logits

        ids = self.tokens(text) if isinstance(text, str) else list(text)
        if not 0 < len(ids) <= self.config.max_seq_len:
            raise UserError(
                f"The text has {len(ids)} tokens: the model takes 1 to {self.config.max_seq_len}."
            )
        return our_logits(self.params, self.config, np.array([ids], np.int32))[0]

    def loss(self, texts: str | Sequence[str]) -> Score:
        """Loss and bits per byte of one text or several; each is a document.

        The texts are read as in training: one after another, in windows of `run.data.seq_len`.

        Args:
          texts: one text, or several, which are scored together.

        Raises:
          UserError: there is no text, or the losses are not finite numbers.
        """
        documents = [texts] if isinstance(texts, str) else list(texts)
        if not any(documents):
            raise UserError("There is no text to evaluate: it is empty.")
        stream = self.tokenizer.stream(documents)
        return self._evaluator.stream(stream, self.tokenizer.marks, lambda *_: None)

    @functools.cached_property
    def _evaluator(self) -> Evaluator:
        from llm_jax.evals.perplexity import Evaluator

        return Evaluator(self.run, self.params, self.tokenizer)

    def generate(
        self,
        prompt: str = "",
        *,
        max_tokens: int = 128,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        repetition_penalty: float = 1.0,
        presence_penalty: float = 0.0,
        frequency_penalty: float = 0.0,
        logit_bias: Mapping[int, float] | None = None,
        stop: Sequence[str] = (),
        schema: Mapping[str, Any] | str | bool | None = None,
        regex: str | None = None,
        grammar: str | None = None,
        seed: int = 0,
        on_text: Callable[[str], object] | None = None,
    ) -> str:
        """A continuation of `prompt`, without the prompt.

        Filters that are None are off. What changes logits applies in the order `logit_bias`,
        penalties, temperature, `top_k`, `top_p`, `min_p`.

        Args:
          prompt: text that the continuation follows; `<s>` comes before it.
          max_tokens: most tokens to add. The text may end earlier, with `</s>`.
          temperature: the logits are divided by it; 0 takes the most likely token (greedy).
          top_k: sample only from the k most likely tokens.
          top_p: sample only from the smallest set of most likely tokens with at least this total
            probability.
          min_p: sample only from tokens with at least this fraction of the highest probability.
          repetition_penalty: logits of tokens that the prompt or the text has are divided by it, or
            multiplied if negative; 1 is off.
          presence_penalty: subtracted from the logit of each token that the text has; 0 is off.
          frequency_penalty: subtracted for each time that the text has the token; 0 is off.
          logit_bias: token ids, and what is added to their logits, -100 to 100.
          stop: strings that end the text, which does not hold them.
          schema: JSON Schema, or its text, that the text is valid JSON under. It, `regex` and
            `grammar` need the extra `constrain`, and exclude each other.
          regex: regular expression that the whole text matches.
          grammar: Lark grammar that derives the text from its rule `start`.
          seed: seed of the sampling.
          on_text: called with each new piece of text as it is made.

        Raises:
          UserError: a value is out of range, no text can have that form, or the text would exceed
            the model's context.
        """
        from llm_jax.infer.completion_text import complete
        from llm_jax.infer.constraint import constraint_of
        from llm_jax.infer.decoder import check_room
        from llm_jax.infer.engine.request import Request
        from llm_jax.infer.sampling import Sampling

        ends = self.stop_ids or (self.tokenizer.eos_id,)
        request = Request(
            prompt=tuple(self.tokens(prompt)),
            max_tokens=max_tokens,
            sampling=Sampling(
                temperature=temperature,
                top_k=top_k,
                top_p=top_p,
                min_p=min_p,
                repetition_penalty=repetition_penalty,
                presence_penalty=presence_penalty,
                frequency_penalty=frequency_penalty,
                logit_bias=tuple((logit_bias or {}).items()),
            ),
            seed=seed,
            stop_ids=ends,
            constraint=constraint_of(
                self.tokenizer, ends, schema=schema, regex=regex, grammar=grammar
            ),
        )
        length = len(request.prompt) + max_tokens
        check_room(generative_of(self.config, "generate"), len(request.prompt), max_tokens)
        engine = self._engine(length)
        ((answer,),) = complete(engine, self.tokenizer, [request], [stop], on_text=on_text)
        return answer.text

    def _engine(self, length: int) -> Engine:
        """The engine of `generate`, made anew only for a longer text than before, or after an
        error or an interruption."""
        from llm_jax.infer.engine.engine import Engine
        from llm_jax.infer.generator import settings_for

        made = self._engines
        if not made or made[0].closed or made[0].max_len < length:
            settings = settings_for(self.config.max_seq_len, 1, length, self.mesh)
            self._engines[:] = [Engine(self, settings)]
        return self._engines[0]

    @functools.cached_property
    def _engines(self) -> list[Engine]:
        return []
