"""The law of a ladder's runs, and how well the smaller runs predict the largest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from llm_jax.laws import lawfile
from llm_jax.laws.fit_figure import draw
from llm_jax.laws.fitting import PARAMETERS, fit
from llm_jax.laws.later_runs import RUN_TO_RUN
from llm_jax.laws.law import Recipe
from llm_jax.laws.run_curves import finals, read


def law_of_ladder(
    folders: Sequence[Path], *, recipe: Recipe, name: str, bootstraps: int, out: Path
) -> dict[str, Any]:
    """Fits a law to the run folders, tests it, and writes `law.json` and `law.png` to `out`.

    The test: a law of the other runs predicts the run with the most FLOPs. The written law is
    fitted to all runs.

    Returns:
      The law, its intervals, its runs and the test, as plain JSON values.

    Raises:
      UserError: the runs do not determine a law.
    """
    curves = read(folders, "all")
    runs = finals(curves)
    last = int(runs.flops.argmax())
    others = np.flatnonzero(np.arange(len(runs.loss)) != last)
    earlier = fit(runs.take(others), bootstraps=bootstraps, name=name)
    earlier = replace(earlier, spread=RUN_TO_RUN)
    point = float(runs.params[last]), float(runs.tokens[last])
    predicted, measured = earlier.loss(*point), float(runs.loss[last])
    error = predicted / measured - 1
    law = fit(
        runs,
        name=name,
        source=f"ladder of {len(curves)} runs on {recipe.text}, {date.today().isoformat()}; the "
        f"others predicted its largest run within {abs(error):.1%}",
        bootstraps=bootstraps,
        recipe=recipe,
    )
    law = replace(law, spread=RUN_TO_RUN)
    files = out / "law.json", out / "law.png"
    lawfile.write(law, files[0])
    draw(runs, law, files[1])
    low, high = np.quantile(np.asarray(law.draws), [0.05, 0.95], axis=0)
    lost = bootstraps - len(law.draws)
    return {
        "law": str(files[0]),
        "figure": str(files[1]),
        **{key: getattr(law, key) for key in PARAMETERS},
        "a": law.a,
        "residual": law.residual,
        "spread": law.spread,
        "intervals": {key: [float(low[i]), float(high[i])] for i, key in enumerate(PARAMETERS)},
        "runs": [
            {
                "name": curve.name,
                "params": int(curve.params),
                "tokens": int(curve.tokens[-1]),
                "loss": curve.loss[-1],
                "predicted": law.loss(curve.params, curve.tokens[-1]),
            }
            for curve in curves
        ],
        "held_out": {
            "name": curves[last].name,
            "predicted": predicted,
            "interval": list(earlier.interval(*point) or ()),
            "measured": measured,
            "error": error,
        },
        "warnings": [
            f"{lost} of {bootstraps} bootstrap samples did not determine a law and were left out."
        ]
        if lost
        else [],
    }
