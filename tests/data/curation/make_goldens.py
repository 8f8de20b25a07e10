"""Writes goldens.json: what the published rules' own code says of `curation_documents.documents`.

    python tests/data/curation/make_goldens.py --swallow quality.py --llm-jp filters.py

It runs in an environment of its own with datatrove[processing] 0.10.1, spacy 3.8, hojichar 0.18.1,
emoji 2.16, fugashi 1.5.2 and unidic-lite 1.0.8; `quality.py` is of swallow-llm/swallow-corpus
(2d03507), `filters.py` of llm-jp/llm-jp-corpus (9815fc5).

Each rule has a string with a character per document: 1 kept, 0 dropped, - its code raised an
exception, . not of its language. Rules that change text also have a hash of it.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
Verdict = tuple[bool, str]
"""Whether a text is kept, and what it becomes."""


def datatrove_rules() -> dict[str, Callable[[str], Verdict]]:
    from datatrove.data import Document
    from datatrove.pipeline import filters
    from datatrove.pipeline.filters.c4_filters import C4ParagraphFilter

    def rule(made: Any) -> Callable[[str], Verdict]:
        made.stat_update = lambda *words, **more: None

        def verdict(text: str) -> Verdict:
            document = Document(text=text, id="")
            said = made.filter(document)
            return bool(said if isinstance(said, bool) else said[0]), document.text

        return verdict

    return {
        "gopher_quality": rule(filters.GopherQualityFilter()),
        "gopher_repetition": rule(filters.GopherRepetitionFilter()),
        "c4": rule(filters.C4QualityFilter()),
        "c4 as fineweb": rule(filters.C4QualityFilter(filter_no_terminal_punct=False)),
        "c4_paragraphs": rule(C4ParagraphFilter()),
        "fineweb": rule(filters.FineWebQualityFilter()),
    }


def hojichar_rules() -> dict[str, Callable[[str], Verdict]]:
    import hojichar
    from hojichar.filters import document_filters as made

    plain = (
        made.DiscardBBSComments(),
        made.CharRepetitionRatioFilter(),
        made.SingleCharacterRepetitionFilter(),
        made.DiscardTooManySpecialToken(),
        made.DiscardTooManyEndingEllipsis(),
        made.DiscardTooShortLines(),
    )
    words = (made.DiscardTooManyNouns(), made.WordRepetitionRatioFilter())

    def verdict_of(rules: tuple[Any, ...]) -> Callable[[str], Verdict]:
        def verdict(text: str) -> Verdict:
            kept = all(not rule.apply(hojichar.Document(text)).is_rejected for rule in rules)
            return kept, text

        return verdict

    return {"hojichar": verdict_of(plain), "hojichar_words": verdict_of(words)}


def swallow_rules(path: Path) -> dict[str, Callable[[str], Verdict]]:
    quality = load(path)
    return {"swallow": lambda text: (quality.apply_v1(quality.main({"text": text})), text)}


def llm_jp_rules(path: Path) -> dict[str, Callable[[str], Verdict]]:
    made = load(path)
    kana, stops = made.is_japanese(), made.has_good_average_sentence_length(250)
    ratio = made.has_good_compression_ratio(0.3, 0.7)
    not_empty = made.is_not_empty()

    def changed(change: Any) -> Callable[[str], Verdict]:
        def verdict(text: str) -> Verdict:
            became = change({"text": text})
            return not_empty(became), became["text"]

        return verdict

    return {
        "japanese_start": lambda text: (kana({"text": text}), text),
        "full_stops": lambda text: (stops({"text": text}), text),
        "compression": lambda text: (ratio({"text": text}), text),
        "japanese_lines": changed(made.extract_japanese_text()),
        "wikipedia_end": changed(made.remove_wikipedia_footnote()),
    }


def load(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--swallow", type=Path, required=True)
    parser.add_argument("--llm-jp", type=Path, required=True)
    args = parser.parse_args()
    sys.path.insert(0, str(HERE.parent))
    from curation_documents import documents

    english = datatrove_rules()
    rules = english | hojichar_rules() | swallow_rules(args.swallow) | llm_jp_rules(args.llm_jp)
    goldens = {}
    for name, rule in rules.items():
        marks, digest = [], hashlib.sha256()
        for language, text in documents():
            if name in english and language != "en":
                marks.append(".")
                continue
            try:
                kept, became = rule(text)
            except Exception:
                marks.append("-")
                continue
            marks.append("01"[kept])
            if kept:
                digest.update(became.encode() + b"\0")
        goldens[name] = {"verdicts": "".join(marks), "texts": digest.hexdigest()}
    text = json.dumps(goldens, indent=1) + "\n"
    (HERE / "goldens.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
