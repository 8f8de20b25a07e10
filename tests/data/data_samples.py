"""Real text for the tests of the data layer: English with code, and Japanese."""

from __future__ import annotations

import sysconfig
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from llm_jax.data.dataset import TokenDataset

JAPANESE = """言語モデルは、文章の続きを予測するように訓練される。
東京の朝は早い。駅前のパン屋では、まだ暗いうちから職人たちが粉をこね、窯に火を入れている。
「今日は雨が降りそうだね」と彼女は言った。空を見上げると、確かに灰色の雲が低く垂れこめていた。
カタカナの語、例えばコンピュータやデータベースも、ひらがなや漢字と同じ文に混ざって現れる。
　全角の空白で始まる段落もある。数字は１２３とも123とも書かれ、記号は（括弧）や――罫線――を含む。
"""
MODULES = ("argparse", "ast", "difflib", "enum", "heapq", "json/decoder", "shlex", "statistics")


def silent(phase: str, done: int, total: int | None) -> None:
    """A progress callback that shows nothing."""


def content(folder: Path) -> dict[str, bytes]:
    """Path of each file below `folder` → its bytes."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def stdlib_texts() -> Iterator[tuple[str, str]]:
    """(name, source) of a few modules of the standard library."""
    for name in MODULES:
        path = Path(sysconfig.get_path("stdlib"), f"{name}.py")
        yield name.replace("/", "_"), path.read_text(encoding="utf-8")


def stream(dataset: TokenDataset, split: str) -> np.ndarray:
    """(n,) every token of `split` in order."""
    records = -(-dataset.num_tokens(split) // dataset.info["record_tokens"])
    return np.concatenate(dataset.records(split, list(range(records))))
