"""The page at `/` in a headless chromium: two models, streams, colours, keys, narrow screens."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llm_jax.serve import page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
PICTURES = os.environ.get("LLM_JAX_PAGE_PICTURES")
"""A folder for pictures of the page, to be looked at."""
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: install it")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as play:
        opened = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def tab(browser: Any, running: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
    """The loaded page; anything that it complains about fails the test."""
    size = {"width": getattr(request, "param", 1200), "height": 900}
    opened = browser.new_page(viewport=size)
    faults: list[str] = []
    opened.on("console", lambda message: message.type == "error" and faults.append(message.text))
    opened.on("pageerror", lambda error: faults.append(str(error)))
    opened.on(
        "request", lambda asked: asked.url.startswith(running.url) or faults.append(asked.url)
    )
    opened.goto(running.url)
    opened.wait_for_selector("#model0")
    yield opened
    if PICTURES:
        name = re.sub(r"\W+", "-", request.node.name)
        opened.screenshot(path=Path(PICTURES) / f"{name}.png", full_page=True)
    opened.close()
    # An answer that is an error is noted by the browser, where a test asks for it.
    asked_for = ("400 (Bad Request)", "502 (Bad Gateway)", "net::ERR_CONNECTION_REFUSED")
    assert [fault for fault in faults if not any(one in fault for one in asked_for)] == []


def ask(tab: Any, **fields: Any) -> None:
    for name, value in fields.items():
        tab.fill(f"#{name}", str(value))


def finish(tab: Any) -> list[str]:
    """What each side says when it has ended."""
    tab.wait_for_selector("#halt:disabled")
    return tab.locator("section .note").all_inner_texts()


@needs_browser
@pytest.mark.parametrize("tab", [1200, 375], indirect=True)
def test_two_models_beside_each_other(tab: Any, running: Any) -> None:
    """Both continue the text; the colours are those of the probabilities that the API gives."""
    ask(tab, text="吾輩は", max=24, temperature=0)
    tab.press("#text", "Control+Enter")
    notes = finish(tab)
    assert len(notes) == 2 and all(note.startswith("24 tokens, length") for note in notes)
    asked = {"prompt": "吾輩は", "max_tokens": 24, "logprobs": 5}
    for index, name in enumerate(("cycle", "random")):
        made = running.complete(model=name, **asked)["choices"][0]
        text = tab.locator(".out").nth(index).evaluate("box => box.textContent")
        assert text == "吾輩は" + made["text"]
    spans = tab.locator(".out").nth(0).locator(".t")
    assert spans.nth(0).inner_text() == "猫" and spans.count() < 24  # three tokens are one
    assert spans.nth(0).get_attribute("class") == "t p4"
    spans.nth(1).hover()
    shown = tab.locator("#tip tr").all_inner_texts()
    assert any(row.startswith("x") and row.endswith("%") for row in shown) and len(shown) == 5
    shade = "span => getComputedStyle(span).backgroundColor"
    colours = [tab.uncheck("#colour") or spans.nth(0).evaluate(shade)]
    colours.append(tab.check("#colour") or spans.nth(0).evaluate(shade))
    assert colours == ["rgba(0, 0, 0, 0)", "rgba(60, 170, 100, 0.16)"]
    spans.nth(0).focus()
    tab.keyboard.press("ArrowRight")
    assert tab.evaluate("document.activeElement.textContent") == "x"
    width = tab.evaluate("document.documentElement.scrollWidth - innerWidth")
    assert width <= 0, "the page is wider than the screen"
    columns = tab.locator("section").evaluate_all("all => all.map(one => one.offsetTop)")
    wide = tab.viewport_size["width"] > 700
    assert (columns[0] == columns[1]) == wide


@needs_browser
def test_a_conversation(tab: Any, running: Any) -> None:
    tab.uncheck("#compare")
    tab.select_option("#mode", "chat")
    for turn in ("猫", "<b>x</b>"):
        ask(tab, text=turn, max=9, temperature=0)
        tab.click("#go")
        assert finish(tab)[0].startswith("9 tokens, length")
    turns = tab.locator(".turn").all_inner_texts()
    assert len(turns) == 4 and "<b>x</b>" in turns[2]  # as text, and not as an element
    tab.select_option("#model0", "random")
    assert "no chat template" in tab.locator("section .note").inner_text()
    ask(tab, text="x")
    tab.click("#go")
    assert "--chat-template FILE" in finish(tab)[0]
    tab.click("#clear")
    assert tab.locator(".turn").count() == 0
    # What was cleared while it was being made is no part of the next conversation.
    tab.select_option("#model0", "cycle")
    engine = running.server.models.find("cycle").engine
    step = engine.step
    engine.step = lambda: tab_wait() or step()  # type: ignore[method-assign]
    try:
        ask(tab, text="x", max=80, temperature=0)
        tab.click("#go")
        tab.wait_for_selector(".turn .t")
        tab.click("#clear")
        finish(tab)
    finally:
        engine.step = step  # type: ignore[method-assign]
    ask(tab, text="y", max=3)
    with tab.expect_request("**/v1/chat/completions") as asked:
        tab.click("#go")
    assert asked.value.post_data_json["messages"] == [{"role": "user", "content": "y"}]
    finish(tab)


@needs_browser
def test_enter_sends_a_message_but_not_while_an_input_method_composes(tab: Any) -> None:
    sent: list[str] = []
    tab.on("request", lambda asked: asked.method == "POST" and sent.append(asked.url))
    composer = tab.context.new_cdp_session(tab)
    tab.uncheck("#compare")
    tab.select_option("#mode", "chat")
    ask(tab, max=3, temperature=0)
    tab.focus("#text")
    for keys in ("Enter", "Control+Enter"):
        composing = {"text": "ねこ", "selectionStart": 2, "selectionEnd": 2}
        composer.send("Input.imeSetComposition", composing)
        tab.keyboard.press(keys)
        assert tab.locator("#halt").is_disabled() and sent == []
    composer.send("Input.insertText", {"text": "猫"})
    tab.keyboard.press("Shift+Enter")
    assert sent == [] and re.fullmatch("猫\n+", tab.input_value("#text"))
    with tab.expect_request("**/v1/chat/completions") as asked:
        tab.keyboard.press("Enter")
    assert "猫" in asked.value.post_data_json["messages"][0]["content"]
    finish(tab)
    assert tab.input_value("#text") == ""
    # Nothing is no message; in a text, Enter is a line.
    tab.keyboard.press("Enter")
    assert len(sent) == 1
    tab.select_option("#mode", "text")
    tab.focus("#text")
    tab.keyboard.press("Enter")
    assert tab.input_value("#text") == "\n" and len(sent) == 1


@needs_browser
def test_a_long_conversation_shows_its_end_and_what_is_said_of_it(tab: Any) -> None:
    tab.set_viewport_size({"width": 600, "height": 400})
    tab.uncheck("#compare")
    tab.select_option("#mode", "chat")
    ask(tab, max=2, temperature=0)
    for _ in range(4):
        tab.fill("#text", "x")
        tab.press("#text", "Enter")
        finish(tab)
    out = tab.locator(".out")
    heights = out.evaluate("box => [box.scrollHeight, box.scrollTop + box.clientHeight]")
    assert heights[0] > 300 and heights[0] - heights[1] < 2
    note, text = (one.bounding_box() for one in (tab.locator("section .note"), out))
    assert note["y"] + note["height"] <= text["y"] and text["height"] <= 241


@needs_browser
def test_errors_are_said_and_a_message_without_an_answer_comes_back(tab: Any) -> None:
    tab.uncheck("#compare")
    tab.select_option("#mode", "chat")
    answers = {
        "The prompt has": lambda route: route.continue_(),
        "The server's answer is 502": lambda route: route.fulfill(status=502, body="<b>no</b>"),
        "The server does not answer": lambda route: route.abort("connectionrefused"),
    }
    for words, handler in answers.items():
        tab.route("**/v1/chat/completions", handler)
        ask(tab, text="a message", max=9_999)
        tab.click("#go")
        assert words in finish(tab)[0]
        assert "error" in tab.locator("section .note").get_attribute("class")
        assert tab.input_value("#text") == "a message" and tab.locator(".turn").count() == 0
        tab.unroute("**/v1/chat/completions")
    ask(tab, max=3)
    with tab.expect_request("**/v1/chat/completions") as asked:
        tab.click("#go")
    assert len(asked.value.post_data_json["messages"]) == 1
    assert finish(tab)[0].startswith("3 tokens") and tab.locator(".turn").count() == 2


@needs_browser
def test_an_answer_of_no_token_has_no_time_of_one(tab: Any) -> None:
    tab.uncheck("#compare")
    ending = {"choices": [{"index": 0, "text": "", "logprobs": None, "finish_reason": "stop"}]}
    body = f"data: {json.dumps(ending)}\n\ndata: [DONE]\n\n"
    headers = {"Content-Type": "text/event-stream"}
    tab.route("**/v1/completions", lambda route: route.fulfill(body=body, headers=headers))
    tab.click("#go")
    assert finish(tab) == ["0 tokens, stop"]


CONTRASTS = """() => {
  const channels = colour => colour.match(/[\\d.]+/g).map(Number);
  const light = rgb => rgb.map(v => v / 255)
    .map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const page = channels(getComputedStyle(document.body).backgroundColor);
  return [...document.querySelectorAll("label, .note, .key span, #clear")].map(one => {
    const style = getComputedStyle(one), [r, g, b, a = 1] = channels(style.backgroundColor);
    const below = [r, g, b].map((v, i) => a * v + (1 - a) * page[i]);
    const both = [light(below), light(channels(style.color).slice(0, 3))].sort((x, y) => y - x);
    return (both[0] + .05) / (both[1] + .05);
  });
}"""
"""Contrast of texts with what is behind them (WCAG 2.2, 1.4.3)."""


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_can_be_read(tab: Any, scheme: Any) -> None:
    tab.emulate_media(color_scheme=scheme)
    assert len(found := tab.evaluate(CONTRASTS)) > 15 and min(found) >= 4.5, found
    shade = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (shade == "rgb(22, 22, 21)") == (scheme == "dark")


@needs_browser
def test_stop_ends_a_stream(tab: Any, running: Any) -> None:
    slow = running.server.models.find("random").engine
    before, step = slow.stats.cancelled, slow.step
    slow.step = lambda: tab_wait() or step()  # type: ignore[method-assign]
    try:
        tab.uncheck("#compare")
        tab.select_option("#model0", "random")
        ask(tab, text="x", max=80, temperature=1, seed=1)
        tab.click("#go")
        tab.keyboard.press("Escape")
        assert finish(tab) == ["stopped"]
        tab.wait_for_timeout(300)
        assert slow.stats.cancelled == before + 1
    finally:
        slow.step = step  # type: ignore[method-assign]


def tab_wait() -> None:
    import time

    time.sleep(0.1)


def test_the_page_has_nothing_from_elsewhere(running: Any) -> None:
    with running.client() as client:
        made = client.get("/")
    assert made.headers["content-security-policy"].startswith("default-src 'none'")
    assert made.headers["content-security-policy"].count("sha256-") == 2
    assert not re.search(r"https?://|innerHTML|insertAdjacent|document\.write|style=", made.text)
    assert made.text == page._content()
