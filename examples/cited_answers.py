"""Answers from your own text, with citations: hybrid search, then a served model.

  llm-jax serve runs/quickstart --chat-template examples/plain.jinja
  python examples/cited_answers.py notes/ "When does the office open?"
  python examples/cited_answers.py notes/ --questions questions.jsonl

Passages are ranked by words (BM25) and by embeddings; the two rankings are fused by reciprocal
ranks (Cormack et al. 2009). The model must name the passage that it answers from. An answer whose
words are not in that passage is refused, and so is a question of which no passage shares a word.

Each line of --questions is {"question": …, "answer": …, "file": …}; "answer" null means that the
text does not tell. Needs: pip install openai bm25s usearch numpy
"""

from __future__ import annotations

import argparse
import json
import re
import unicodedata
from pathlib import Path
from typing import NamedTuple

import bm25s
import numpy as np
from openai import OpenAI, OpenAIError
from usearch.index import Index

KANA_KANJI = r"[\u3040-\u30ff\u3400-\u9fff]"
COMMON = frozenset(re.findall(r"\w+", "a an are at by do for how in is it of on the to when who"))


class Passage(NamedTuple):
    file: str
    text: str


def words(text: str) -> list[str]:
    """Words of text; of Japanese, which has no spaces, its pairs of characters."""
    text = unicodedata.normalize("NFKC", text).lower()
    latin = re.findall(r"[^\W_]+", re.sub(KANA_KANJI, " ", text))
    runs = re.findall(f"{KANA_KANJI}+", text)
    pairs = [run[i : i + 2] for run in runs for i in range(max(1, len(run) - 1))]
    return [word for word in latin + pairs if word not in COMMON]


def passages(folder: Path) -> list[Passage]:
    """The paragraphs of the .txt and .md files of a folder."""
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".txt", ".md"))
    split = [(path, re.split(r"\n\s*\n", path.read_text("utf-8"))) for path in files]
    found = [Passage(str(p.relative_to(folder)), t.strip()) for p, each in split for t in each]
    return [one for one in found if one.text]


class Search:
    """Both rankings of the passages."""

    def __init__(self, client: OpenAI, model: str, texts: list[Passage]) -> None:
        self.client, self.model, self.texts = client, model, texts
        self.by_words = bm25s.BM25()
        self.by_words.index([words(one.text) or [""] for one in texts], show_progress=False)
        vectors = self.embed([one.text for one in texts])
        self.by_meaning = Index(ndim=vectors.shape[1], metric="cos")
        self.by_meaning.add(np.arange(len(texts)), vectors)

    def embed(self, texts: list[str]) -> np.ndarray:
        parts = [texts[start : start + 16] for start in range(0, len(texts), 16)]
        made = [self.client.embeddings.create(model=self.model, input=part) for part in parts]
        return np.array([row.embedding for one in made for row in one.data], np.float32)

    def __call__(self, question: str, count: int) -> list[Passage]:
        """The best passages; none if no passage shares a word with the question."""
        k, asked = min(4 * count, len(self.texts)), words(question)
        found, scores = self.by_words.retrieve([asked or [""]], k=k, show_progress=False)
        lexical = [int(i) for i, score in zip(found[0], scores[0], strict=True) if score > 0]
        if not asked or not lexical:
            return []
        semantic = [int(i) for i in self.by_meaning.search(self.embed([question])[0], k).keys]
        fused: dict[int, float] = {}
        for place, i in [*enumerate(lexical), *enumerate(semantic)]:
            fused[i] = fused.get(i, 0) + 1 / (60 + place)
        return [self.texts[i] for i in sorted(fused, key=lambda i: -fused[i])[:count]]


def answer(search: Search, question: str, count: int) -> tuple[str | None, str]:
    """The answer and the file that it is from; or None, and why it is refused."""
    if not (evidence := search(question, count)):
        return None, "no passage shares a word with the question"
    numbered = "\n".join(f"[{i}] {one.text}" for i, one in enumerate(evidence, 1))
    fields = {"passage": {"enum": [*range(1, len(evidence) + 1), None]},
              "answer": {"type": "string", "maxLength": 200}}  # fmt: skip
    schema = {"type": "object", "properties": fields, "required": [*fields],
              "additionalProperties": False}  # fmt: skip
    made = search.client.chat.completions.create(
        model=search.model,
        messages=[{"role": "user", "content": f"{numbered}\n\n{question}\n"
                   "Copy the answer from the passage that holds it; passage null if none does."}],
        response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": schema}},
        temperature=0,
    )  # fmt: skip
    try:
        said = json.loads(made.choices[0].message.content or "")
    except json.JSONDecodeError:
        return None, "the model's answer was cut off"
    if said["passage"] is None:
        return None, "the model finds no answer in the passages"
    passage = evidence[said["passage"] - 1]
    if not words(said["answer"]) or not set(words(said["answer"])) <= set(words(passage.text)):
        return None, f"{said['answer']!r} is not in the passage"
    return said["answer"], passage.file


def evaluate(search: Search, questions: Path, count: int) -> dict[str, float]:
    """Recall of the right file, share of right answers, and of right refusals."""
    rows = [json.loads(line) for line in questions.read_text("utf-8").splitlines() if line.strip()]
    known, unknown = ([r for r in rows if (r["answer"] is None) == no] for no in (False, True))
    hits = [row["file"] in {one.file for one in search(row["question"], count)} for row in known]
    told = [(row["answer"], answer(search, row["question"], count)[0]) for row in known]
    right = [words(wanted) == words(said or "") for wanted, said in told]
    refused = [answer(search, row["question"], count)[0] is None for row in unknown]
    means = {f"recall@{count}": hits, "answers right": right, "refusals right": refused}
    return {name: sum(ones) / len(ones) for name, ones in means.items() if ones}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("question", nargs="?")
    parser.add_argument("--questions", type=Path)
    parser.add_argument("--url", default="http://127.0.0.1:8000/v1")
    parser.add_argument("--key", default="none", help="the server's key, if it has one")
    parser.add_argument("--passages", type=int, default=3)
    args = parser.parse_args()
    client, texts = OpenAI(base_url=args.url, api_key=args.key), passages(args.folder)
    if not texts or not (args.question or args.questions):
        parser.error("give a folder with .txt or .md files, and a question or --questions")
    try:
        search = Search(client, client.models.list().data[0].id, texts)
        if args.questions:
            print(json.dumps(evaluate(search, args.questions, args.passages)))
        if args.question:
            text, note = answer(search, args.question, args.passages)
            print(f"I do not know: {note}." if text is None else f"{text} [{note}]")
    except OpenAIError as error:
        raise SystemExit(f"The server at {args.url}: {error}") from None


if __name__ == "__main__":
    main()
