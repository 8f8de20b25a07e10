"""The examples speak to a real server. Its random model answers in form, and is not believed."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import jax
import pytest
import tiny
from a_server import Running, start_server, tokenizer_of

from llm_jax.infer.chat_template import ChatTemplate, special_tokens
from llm_jax.infer.engine.engine import Engine
from llm_jax.infer.engine.settings import EngineSettings
from llm_jax.language_model import LanguageModel
from llm_jax.serve.served import Served

openai = pytest.importorskip("openai")
EXAMPLES = Path(__file__).parents[2] / "examples"
CONTEXT = 2048
NOTES = {
    "office.md": "The office opens at nine o'clock.\n\nIt is closed on Sunday.",
    "station.txt": "The nearest railway station is Kanda.",
    "neko.txt": "吾輩は猫である。名前はまだ無い。",
    "goban.txt": "郵便局は駅の東側にあります。",
}
QUESTIONS = [
    {"question": "When does the office open?", "answer": "at nine o'clock", "file": "office.md"},
    {"question": "Which railway station is nearest?", "answer": "Kanda", "file": "station.txt"},
    {"question": "猫の名前は何ですか", "answer": "まだ無い", "file": "neko.txt"},
    {"question": "郵便局はどこですか", "answer": "駅の東側", "file": "goban.txt"},
    {"question": "Who wrote Hamlet?", "answer": None, "file": None},
    {"question": "富士山の高さ", "answer": None, "file": None},
]


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def talker() -> Iterator[Running]:
    """A random model with the template of the examples."""
    config = tiny.model_config(vocab_size=304, d_model=64, max_seq_len=CONTEXT)
    params = jax.device_get(tiny.parameters(config, size=0.2))
    run = tiny.run_config(model=config)
    run = dataclasses.replace(run, data=dataclasses.replace(run.data, seq_len=64))
    model = LanguageModel(run, params, tokenizer_of())
    engine = Engine(model, EngineSettings(slots=2, prefill_chunk=64))
    template = ChatTemplate((EXAMPLES / "plain.jinja").read_text("utf-8"), "plain.jinja")
    running, stop = start_server([Served("random", "nowhere", model, engine, template, CONTEXT)])
    yield running
    stop()


@pytest.fixture
def client(talker: Running) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{talker.url}/v1", api_key="none", max_retries=0)


@pytest.mark.slow
def test_the_right_passage_is_found_and_an_invented_answer_refused(
    client: openai.OpenAI, tmp_path: Path
) -> None:
    pytest.importorskip("bm25s")
    pytest.importorskip("usearch")
    cited = example("cited_answers")
    for name, text in NOTES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    questions = tmp_path / "questions.jsonl"
    questions.write_text("\n".join(map(json.dumps, QUESTIONS)), encoding="utf-8")
    search = cited.Search(client, "random", cited.passages(tmp_path))
    assert len(search.texts) == 5
    assert search(QUESTIONS[2]["question"], 1)[0].file == "neko.txt"
    scores = cited.evaluate(search, questions, 2)
    assert scores == {"recall@2": 1.0, "answers right": 0.0, "refusals right": 1.0}
    text, why = cited.answer(search, "When does the office open?", 2)
    assert text is None and ("is not in the passage" in why or "no answer" in why or "cut" in why)


def test_the_template_begins_a_document_as_in_training(talker: Running) -> None:
    served = talker.server.models.find("random")
    assert served.template is not None
    tokenizer = served.model.tokenizer
    text = served.template.text([{"role": "user", "content": "x"}], special_tokens(tokenizer))
    assert text == "<s>User: x\n\nAssistant:"
    begin, *rest = served.conversation_ids(text)
    assert begin == tokenizer.bos_id and tokenizer.bos_id not in rest


def test_tools_are_called_in_form_and_the_loop_ends(
    client: openai.OpenAI, capsys: pytest.CaptureFixture[str]
) -> None:
    tools = example("tool_loop")
    tools.ask(client, "random", "How many days?", 3)
    turns = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("  ")]
    assert 1 <= len(turns) <= 3
    shapes = [{"tool", "expression"}, {"tool", "first", "last"}, {"answer"}]
    for turn in turns:
        assert set(json.loads(turn)) in shapes


def test_answers_get_what_the_context_leaves(
    client: openai.OpenAI, talker: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    """A number of tokens that fits one model does not fit another: the quickstart's context is 512.
    What the server refuses is one sentence."""
    for name, words in (("tool_loop", []), ("cited_answers", [str(EXAMPLES)])):
        if name == "cited_answers":
            pytest.importorskip("bm25s")
            pytest.importorskip("usearch")
        assert "max_tokens" not in (EXAMPLES / f"{name}.py").read_text("utf-8")
        asked = [*words, "llm-jax serve " * 300, "--url", f"{talker.url}/v1"]
        with (
            pytest.MonkeyPatch.context() as patch,
            pytest.raises(SystemExit, match=r"The server at http.*: Error code: 400"),
        ):
            patch.setattr(sys, "argv", [name, *asked])
            example(name).main()
    with (
        pytest.MonkeyPatch.context() as patch,
        pytest.raises(SystemExit),
    ):
        patch.setattr(sys, "argv", ["cited_answers", str(EXAMPLES)])
        example("cited_answers").main()
    assert "and a question or --questions" in capsys.readouterr().err


def test_tools_compute_and_refuse() -> None:
    tools = example("tool_loop")
    assert tools.use({"tool": "days_between", "first": "2026-01-31", "last": "2026-03-01"}) == "29"
    rng = random.Random(0)
    for _ in range(20):
        a, b, c = (rng.randint(1, 99) for _ in range(3))
        made = tools.use({"tool": "calculate", "expression": f"-{a}*({b}+{c})/4"})
        assert float(made) == pytest.approx(-a * (b + c) / 4)
    for hostile in ("__import__('os')", "9**9**9", "(" * 500, "1/0", ""):
        assert tools.use({"tool": "calculate", "expression": hostile}).startswith("failed: ")
    assert tools.use({"tool": "days_between", "first": "soon", "last": ""}).startswith("failed: ")
