"""What the folder of a model says before its weights are read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from llm_jax.config import Architecture, RunConfig, read_config
from llm_jax.convert.kept_files import stop_ids
from llm_jax.data.tokenizers import Tokenizer
from llm_jax.runs.model_places import Place
from llm_jax.runs.places import run_file


@dataclass(frozen=True)
class Described:
    """A model whose weights have not been read.

    Attributes:
      run: config of the run; of a Hugging Face folder, its architecture and the defaults of
        everything else.
      stop_ids: ids that end a generated text.
    """

    place: Place
    run: RunConfig
    tokenizer: Tokenizer
    stop_ids: tuple[int, ...]

    @property
    def architecture(self) -> Architecture:
        return self.run.model


def describe(place: Place, tokenizer: str | Path | None = None) -> Described:
    """Reads all that a folder has but its weights.

    Args:
      tokenizer: tokenizer file or folder for a Hugging Face folder; None: its own.

    Raises:
      UserError: a file cannot be used, the architecture is not supported, the tokenizer does not
        fit, or there are no weights in a form that is read.
    """
    folder = place.folder
    if place.is_run:
        config, own = read_config(run_file(folder), RunConfig), Tokenizer.load(folder)
    else:
        config, own = _of_hugging_face(folder, tokenizer)
    return Described(place, config, own, stop_ids(folder, own))


def _of_hugging_face(folder: Path, given: str | Path | None) -> tuple[RunConfig, Tokenizer]:
    from llm_jax.convert.hf_model import architecture_of, read_config_json, weights_in
    from llm_jax.convert.hf_read import require_fits, run_config
    from llm_jax.convert.own_tokenizer import tokenizer_of

    raw = read_config_json(folder)
    model = architecture_of(raw)
    tokenizer = tokenizer_of(folder, given)
    require_fits(raw, model, tokenizer)
    weights_in(folder, raw)
    return run_config(model, folder), tokenizer
