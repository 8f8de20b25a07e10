"""Layers that predict further tokens (Gloeckle et al. 2024; DeepSeek-V3, §2.2).

A checkpoint may hold them after the last layer, numbered on. They change nothing of the next token;
transformers leaves them out, and so does this importer.
"""

from __future__ import annotations

import re
from typing import Any

KEY = "num_nextn_predict_layers"
"""Key of config.json with their number."""
FAMILIES = ("deepseek_v3", "glm4_moe")
"""Model types whose checkpoints may have them."""
LAYER = re.compile(r"model\.layers\.(\d{1,6})\.")


def of_further_layers(raw: dict[str, Any], name: str) -> bool:
    """Whether the tensor `name` belongs to a layer that predicts further tokens.

    Args:
      raw: config.json, whose types were checked.
    """
    if raw.get("model_type") not in FAMILIES or not (found := LAYER.match(name)):
        return False
    first = raw["num_hidden_layers"]
    return bool(first <= int(found[1]) < first + (raw.get(KEY) or 0))


def left_out(raw: dict[str, Any]) -> str | None:
    """A sentence for an export of a model that was imported; None if it had no such layers."""
    if raw.get("model_type") not in FAMILIES or not raw.get(KEY):
        return None
    return (
        f"layers that predict further tokens are not in a run: {KEY} is 0, where the config.json "
        f"that was imported has {raw[KEY]}"
    )
