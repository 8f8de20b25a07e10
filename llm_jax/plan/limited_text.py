"""Limited text: laws for runs that read some of their text several times.

Repeated tokens are worth less than new ones (Muennighoff et al. 2023). A run may read several
sources, each with its own number of different tokens; then each source's repetitions count for
themselves. The paper measured one source; that its formula adds up over sources is an assumption.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from llm_jax.config import UserError
from llm_jax.laws.law import Law, Optimum, Parametric
from llm_jax.plan.objectives import minimise_over_params

R_STAR_D = 15.387756
"""Repetitions after which repeated tokens have lost most of their value (Muennighoff et al. 2023,
appendix A)."""
R_STAR_N = 5.309743
"""The same for parameters beyond those that the unique tokens can train."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Text of one kind, and how much of a run's tokens come from it."""

    name: str
    unique: float
    """Different tokens that exist."""
    share: float
    """Share of the training tokens, above 0, up to 1."""

    def epochs(self, tokens: float) -> float:
        """Times that it is read in a run of `tokens` tokens in all."""
        return self.share * tokens / self.unique

    def seen(self, tokens: float) -> float:
        """Different tokens of it that such a run reads."""
        return min(self.unique, self.share * tokens)

    def effective(self, tokens: float, r_star: float = R_STAR_D) -> float:
        """D': the new tokens that have the same value as those read (ibid., eq. 5)."""
        return _worth(self.seen(tokens), self.share * tokens, r_star)


@dataclass(frozen=True, kw_only=True)
class DataConstrained(Law):
    """A parametric law with limited text (Muennighoff et al. 2023, eqs. 5–6).

    D' = U + U·R*·(1 − e^(−R/R*)) with R = D/U − 1 repetitions, summed over the sources. The same
    formula applies to parameters beyond those for which the U tokens seen are optimal. It was
    fitted with dropout on up to 500 epochs.
    """

    law: Parametric
    sources: tuple[Source, ...]
    r_star_d: float = R_STAR_D
    r_star_n: float = R_STAR_N

    @property
    def free_tokens(self) -> float:
        """Tokens up to which nothing is read twice."""
        return min(source.unique / source.share for source in self.sources)

    def effective_tokens(self, tokens: float) -> float:
        """D': the unique tokens with the same value as `tokens` with repetitions."""
        return sum(source.effective(tokens, self.r_star_d) for source in self.sources)

    def effective_params(self, params: float, tokens: float) -> float:
        """N': `params`, with less value for those beyond the optimum of the tokens seen."""
        seen = sum(source.seen(tokens) for source in self.sources)
        fed = min(self.law.params_for_tokens(seen), params)
        return _worth(fed, params, self.r_star_n)

    def effective(self, params: float, tokens: float) -> tuple[float, float]:
        """N' and D', at which the law without a limit has this run's loss."""
        if tokens <= self.free_tokens:
            return params, tokens
        return self.effective_params(params, tokens), self.effective_tokens(tokens)

    def loss(self, params: float, tokens: float) -> float:
        return self.law.loss(*self.effective(params, tokens))

    def optimum(self, flops: float) -> Optimum:
        free = self.law.optimum(flops)
        if free.tokens <= self.free_tokens:
            return free
        params = minimise_over_params(
            lambda n: self.loss(n, flops / (6 * n)), free.params / 100, free.params * 100
        )
        tokens = flops / (6 * params)
        return Optimum(params, tokens, self.loss(params, tokens))

    def half_width(self, params: float, tokens: float) -> float:
        """The law's own, combined with the change if R*_D is halved, because R*_D is uncertain."""
        short = replace(self, r_star_d=self.r_star_d / 2)
        change = short.loss(params, tokens) - self.loss(params, tokens)
        return math.hypot(self.law.half_width(params, tokens), change)


def _worth(once: float, total: float, r_star: float) -> float:
    """U + U·R*·(1 − e^(−R/R*)) with R = total/U − 1."""
    repeats = total / once - 1
    return once * (1 + r_star * (1 - math.exp(-repeats / r_star)))


def data_constrained(law: Law, sources: tuple[Source, ...]) -> DataConstrained:
    """`law` with at most the different tokens of `sources`, whose shares add up to 1.

    Raises:
      UserError: the law is not parametric.
    """
    if not isinstance(law, Parametric):
        raise UserError(
            f"The law {law.name} cannot be limited to unique tokens: choose a parametric law such "
            "as besiroglu-2024, or a law file."
        )
    unique = sum(source.unique for source in sources)
    several = f" in {len(sources)} sources" if len(sources) > 1 else ""
    return DataConstrained(
        name=f"{law.name} with {unique:.4g} unique tokens{several}",
        source=f"{law.source}; repeated tokens after Muennighoff et al. 2023, eqs. 5–6",
        counts=law.counts,
        fitted=law.fitted,
        law=law,
        sources=sources,
    )


def one_source(unique: float) -> tuple[Source, ...]:
    """All tokens from one text of `unique` different tokens."""
    return (Source(name="text", unique=unique, share=1.0),)
