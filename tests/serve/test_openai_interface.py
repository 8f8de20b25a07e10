"""The HTTP interface by OpenAI's client, LangChain's, curl and lm-eval."""

from __future__ import annotations

import base64
import json
import subprocess
from typing import Any

import numpy as np
import pytest

from llm_jax.convert.parity import our_logits
from llm_jax.infer import embeddings

openai = pytest.importorskip("openai")


@pytest.fixture(scope="module")
def client(running):
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0) as made:
        yield made


def log_probs(model, ids) -> np.ndarray:
    """(T, V): of the token after each one, computed at once."""
    logits = our_logits(model.params, model.config, np.array([ids], np.int32))[0]
    logits = logits[:, : model.tokenizer.vocab_size].astype(np.float64)
    return logits - np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1, keepdims=True)) \
        - logits.max(-1, keepdims=True)  # fmt: skip


def test_models_are_listed(client):
    assert [model.id for model in client.models.list()] == ["cycle", "random"]
    assert client.models.retrieve("random").owned_by == "llm-jax"


def test_a_completion_is_the_greedy_text(client, running):
    made = client.completions.create(model="cycle", prompt="x", max_tokens=17, temperature=0)
    (choice,) = made.choices
    assert (choice.text, choice.finish_reason) == ("yz吾輩は猫xyz", "length")
    assert made.object == "text_completion"
    assert made.usage.model_dump(include={"prompt_tokens", "completion_tokens"}) == {
        "prompt_tokens": 2, "completion_tokens": 17,
    }  # fmt: skip


@pytest.mark.parametrize("model", ["cycle", "random"])
def test_a_stream_is_the_same_text(client, model):
    """Each character of Japanese takes three tokens; those that cannot be one become U+FFFD."""
    asked = {"model": model, "prompt": "xyz", "max_tokens": 40, "temperature": 0}
    whole = client.completions.create(**asked)
    parts = list(client.completions.create(
        **asked, stream=True, stream_options={"include_usage": True}
    ))  # fmt: skip
    texts = [part.choices[0].text for part in parts[:-1]]
    assert "".join(texts) == whole.choices[0].text
    assert parts[-2].choices[0].finish_reason == whole.choices[0].finish_reason
    assert parts[-1].choices == [] and parts[-1].usage == whole.usage
    if model == "cycle":
        assert {"吾", "輩", "猫"} <= set(texts)


def test_a_stop_string_over_tokens_is_not_shown(client):
    asked = {"model": "cycle", "prompt": "x", "temperature": 0, "stop": ["輩は猫", "never"]}
    whole = client.completions.create(**asked, max_tokens=60)
    assert (whole.choices[0].text, whole.choices[0].finish_reason) == ("yz吾", "stop")
    parts = list(client.completions.create(**asked, max_tokens=60, stream=True))
    assert "".join(part.choices[0].text for part in parts) == "yz吾"
    # What only began like a stop string is shown at the end.
    cut = client.completions.create(**asked, max_tokens=8)
    assert (cut.choices[0].text, cut.choices[0].finish_reason) == ("yz吾輩", "length")


def test_seeds_and_several_answers(client):
    asked = {"model": "random", "prompt": ["a", "b"], "max_tokens": 12, "logprobs": 0}
    first = client.completions.create(**asked, n=2, seed=5)
    assert [choice.index for choice in first.choices] == [0, 1, 2, 3]
    texts = [choice.text for choice in first.choices]
    assert len(set(texts)) == 4
    assert [c.text for c in client.completions.create(**asked, n=2, seed=5).choices] == texts
    alone = client.completions.create(**asked | {"prompt": "b"}, seed=5)
    assert alone.choices[0].text == texts[2]
    best = client.completions.create(**asked | {"prompt": "a"}, n=1, best_of=4, seed=5)
    four = client.completions.create(**asked | {"prompt": "a"}, n=4, seed=5)
    means = [np.mean(choice.logprobs.token_logprobs) for choice in four.choices]
    assert best.choices[0].text == four.choices[int(np.argmax(means))].text


def test_echo_gives_the_log_probs_of_the_prompt(running):
    """They are those of the whole forward pass, and the largest is the same number."""
    model = running.models["random"]
    prompt = "def 猫 main"
    ids = model.tokens(prompt)
    made = running.complete(model="random", prompt=prompt, echo=True, max_tokens=0, logprobs=3)
    (choice,) = made["choices"]
    assert choice["text"] == prompt
    assert len(choice["logprobs"]["tokens"]) == len(ids)
    found, expected = choice["logprobs"]["token_logprobs"], log_probs(model, ids)
    assert found[0] is None and choice["logprobs"]["top_logprobs"][0] is None
    np.testing.assert_allclose(found[1:], expected[np.arange(len(ids) - 1), ids[1:]], atol=1e-4)
    for value, top in zip(found[1:], choice["logprobs"]["top_logprobs"][1:], strict=True):
        assert 3 <= len(top) <= 4 and value in top.values()
    offsets = choice["logprobs"]["text_offset"]
    assert offsets == sorted(offsets) and offsets[-1] < len(prompt)
    same = running.complete(model="random", prompt=ids, echo=True, max_tokens=0, logprobs=3)
    assert same["choices"] == made["choices"]
    assert same["usage"]["completion_tokens"] == 0


@pytest.mark.slow
def test_lm_eval_scores_are_the_models(running):
    """`local-completions` with token ids, as lm-eval sends them."""
    pytest.importorskip("lm_eval")
    from lm_eval.api.instance import Instance
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    model = running.models["random"]
    lm = LocalCompletionsAPI(
        base_url=f"{running.url}/v1/completions", model="random", tokenizer_backend="remote",
        tokenized_requests=True, max_length=96, batch_size=4, num_concurrent=2,
    )  # fmt: skip
    assert lm.tok_encode("</s>") == [model.tokenizer.eos_id]
    pairs = [("def", " main"), ("return", "猫"), ("argument +", " 1\n"), ("", "def main")]
    pairs = [(context or "</s>", continuation) for context, continuation in pairs]
    requests = [
        Instance("loglikelihood", {}, pair, index) for index, pair in enumerate(pairs)
    ]  # fmt: skip
    for (context, continuation), (score, greedy) in zip(
        pairs, lm.loglikelihood(requests, disable_tqdm=True), strict=True
    ):
        before, after = lm._encode_pair(context, continuation)
        ids = [*before, *after]
        found = log_probs(model, ids)[len(before) - 1 : -1]
        assert score == pytest.approx(found[np.arange(len(after)), after].sum(), abs=1e-4)
        assert greedy == (found.argmax(-1).tolist() == after)
    generated = lm.generate_until(
        [Instance("generate_until", {}, ("x", {"until": ["は"], "max_gen_toks": 30}), 0)],
        disable_tqdm=True,
    )
    assert isinstance(generated[0], str)


def test_settings_of_sampling_reach_the_engine(running, tokenizer):
    (z,) = tokenizer.encode("z")
    ids = tokenizer.encode("xyz")
    plain = running.complete(prompt="x", max_tokens=6)["choices"][0]["text"]
    assert plain == "yz吾\ufffd"  # cut inside of a character
    pushed = running.complete(prompt="x", max_tokens=3, logit_bias={str(z): 100})
    assert pushed["choices"][0]["text"] == "zzz"
    never = running.complete(prompt="x", max_tokens=6, logit_bias={str(ids[1]): -100})
    assert "y" not in never["choices"][0]["text"]
    at = running.complete(prompt="x", max_tokens=6, stop_token_ids=[z])["choices"][0]
    assert (at["text"], at["finish_reason"]) == ("y", "stop")
    later = running.complete(prompt="x", max_tokens=6, stop_token_ids=[z], min_tokens=2)
    assert later["choices"][0]["text"] != "y"
    hot = {"prompt": "x", "max_tokens": 8, "temperature": 2.0, "seed": 1}
    assert running.complete(**hot, top_k=1)["choices"][0]["text"] == running.complete(
        prompt="x", max_tokens=8)["choices"][0]["text"]  # fmt: skip
    free = {"model": "random", "prompt": "xyz", "max_tokens": 30}
    plain = running.complete(**free)["choices"][0]["text"]
    for name, value in {
        "frequency_penalty": 2,
        "presence_penalty": 2,
        "repetition_penalty": 3,
    }.items():
        assert running.complete(**free, **{name: value})["choices"][0]["text"] != plain, name


def test_chat_renders_the_template_and_streams(client, running, tokenizer):
    asked: dict[str, Any] = {
        "model": "cycle", "messages": [{"role": "user", "content": "猫"}], "temperature": 0,
        "max_tokens": 12, "logprobs": True, "top_logprobs": 2,
    }  # fmt: skip
    made = client.chat.completions.create(**asked)
    text = "user: 猫\na: "
    assert made.usage.prompt_tokens == 1 + len(tokenizer.encode(text))
    direct = running.complete(prompt=text, max_tokens=12)["choices"][0]["text"]
    assert made.choices[0].message.content == direct
    content = made.choices[0].logprobs.content
    assert len(content) == 12 and all(len(one.top_logprobs) == 2 for one in content)
    assert content[0].logprob <= content[0].top_logprobs[0].logprob
    parts = list(client.chat.completions.create(**asked, stream=True))
    assert parts[0].choices[0].delta.role == "assistant"
    assert "".join(part.choices[0].delta.content or "" for part in parts) == direct
    assert parts[-1].choices[0].finish_reason == "length"


def test_a_model_without_a_template_says_what_to_do(client):
    with pytest.raises(openai.BadRequestError, match="--chat-template FILE") as error:
        client.chat.completions.create(model="random", messages=[{"role": "user", "content": "x"}])
    assert error.value.body["code"] == "no_chat_template"


def test_json_by_a_schema(client):
    pytest.importorskip("llguidance")
    schema = {
        "type": "object", "properties": {"a": {"enum": [1, 22]}, "b": {"type": "boolean"}},
        "required": ["a", "b"], "additionalProperties": False,
    }  # fmt: skip
    asked = {"model": "cycle", "messages": [{"role": "user", "content": "x"}], "max_tokens": 60}
    form = {"type": "json_schema", "json_schema": {"name": "made", "schema": schema}}
    for seed in range(3):
        made = client.chat.completions.create(**asked, response_format=form, seed=seed)
        value = json.loads(made.choices[0].message.content)
        assert value["a"] in (1, 22) and isinstance(value["b"], bool)
        assert made.choices[0].finish_reason == "stop"
    impossible = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": 3}}}
    with pytest.raises(openai.BadRequestError) as error:
        client.chat.completions.create(**asked, response_format=impossible)
    assert error.value.body["param"] == "response_format"


def test_embeddings_are_mean_hidden_states(client, running):
    model = running.models["random"]
    texts = ["def main", "猫"]
    expected = embeddings.of_texts(model, texts)
    made = client.embeddings.create(model="random", input=texts)  # in base64, as it asks
    found = np.array([row.embedding for row in made.data])
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    ids = [model.tokenizer.encode(text) for text in texts]
    raw = running.post("/v1/embeddings", model="random", input=ids, encoding_format="base64")
    row = np.frombuffer(base64.b64decode(raw.json()["data"][1]["embedding"]), "<f4")
    np.testing.assert_allclose(row, expected[1], rtol=1e-5, atol=1e-6)
    assert raw.json()["usage"]["prompt_tokens"] == sum(map(len, ids))
    # Many are computed together, by length, and come in their order.
    many = [f"{'def main '[: 1 + i % 9] * (1 + i % 5 * 4)}{i}" for i in range(20)]
    made = client.embeddings.create(model="random", input=many)
    found = np.array([row.embedding for row in made.data])
    alone = np.concatenate([embeddings.of_texts(model, [text]) for text in many])
    np.testing.assert_allclose(found, alone, rtol=1e-4, atol=1e-5)


def test_the_tokenizer(running, tokenizer):
    ids = tokenizer.encode("def 猫")
    made = running.post("/tokenize", prompt="def 猫", return_token_strs=True).json()
    assert made["tokens"] == [tokenizer.bos_id, *ids] and made["max_model_len"] == 96
    assert made["token_strs"] == tokenizer.pieces(made["tokens"])
    bare = running.post("/tokenize", prompt="def 猫", add_special_tokens=False, model="random")
    assert bare.json()["tokens"] == ids
    assert running.post("/detokenize", tokens=ids).json() == {"prompt": "def 猫"}


def test_langchain(running):
    chat = pytest.importorskip("langchain_openai")
    model = chat.ChatOpenAI(
        base_url=f"{running.url}/v1", api_key="none", model="cycle", temperature=0, max_tokens=9
    )
    whole = model.invoke("x")
    assert whole.content and whole.response_metadata["finish_reason"] == "length"
    assert "".join(part.content for part in model.stream("x")) == whole.content
    vectors = chat.OpenAIEmbeddings(
        base_url=f"{running.url}/v1", api_key="none", model="random",
        check_embedding_ctx_length=False,
    ).embed_documents(["a", "b"])  # fmt: skip
    assert len(vectors) == 2 and len(vectors[0]) == 64


def test_curl(running):
    body = json.dumps({"model": "cycle", "prompt": "x", "max_tokens": 5, "temperature": 0})
    words = ["curl", "-sS", "-H", "Content-Type: application/json", "-d", body]
    done = subprocess.run([*words, f"{running.url}/v1/completions"], capture_output=True)
    assert json.loads(done.stdout)["choices"][0]["text"] == "yz吾"
    streamed = json.dumps(json.loads(body) | {"stream": True})
    words[-1] = streamed
    done = subprocess.run([*words, f"{running.url}/v1/completions"], capture_output=True)
    lines = [line for line in done.stdout.decode().split("\n\n") if line]
    assert all(line.startswith("data: ") for line in lines) and lines[-1] == "data: [DONE]"
    wrong = ["curl", "-sS", "-d", body, "-o", "/dev/null", "-w", "%{http_code}"]
    done = subprocess.run([*wrong, f"{running.url}/v1/completions"], capture_output=True)
    assert done.stdout == b"415"


def test_metrics_count(running):
    before = running.complete(prompt="x", max_tokens=4)
    assert before["usage"]["completion_tokens"] == 4
    with running.client() as client:
        text = client.get("/metrics").text
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#")
    assert float(values['llm_jax_generated_tokens_total{model="cycle"}']) >= 4
    assert float(values['llm_jax_time_to_first_token_seconds_count{model="cycle"}']) >= 1
    assert float(values['llm_jax_slots{model="random"}']) == 4
    path = 'llm_jax_http_requests_total{path="/v1/completions",status="200"}'
    assert float(values[path]) >= 1
