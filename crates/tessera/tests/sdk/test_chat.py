"""Chat, models, completions and embeddings by the official client, which refuses answers of a wrong shape."""

import base64
import math
import struct

import pytest

MODEL = "smollm2"
QUESTION = [{"role": "user", "content": "Why is the sky blue?"}]
# Where an answer must end by itself, a form ends it: what a model of 135M parameters says, and when it stops, is
# another with every conversion.
ENDS = {"guided_regex": "[A-Za-z, ]{8,60}"}


def ask(client, **options):
    options = {"max_completion_tokens": 24, "temperature": 0, "messages": QUESTION} | options
    return client.chat.completions.create(model=MODEL, **options)


def text(answer):
    return answer.choices[0].message.content


def test_models(client):
    models = client.models.list()
    assert [model.id for model in models] == [MODEL]
    assert client.models.retrieve(MODEL).owned_by == "tessera"


def test_an_answer_and_its_usage(client):
    answer = ask(client)
    assert answer.model == MODEL and text(answer)
    usage = answer.usage
    assert usage.completion_tokens == 24 and answer.choices[0].finish_reason == "length"
    assert usage.prompt_tokens + usage.completion_tokens == usage.total_tokens
    assert ask(client).usage.prompt_tokens_details.cached_tokens > 0, "the prompt was there already"


def test_a_stream_is_the_same_text(client):
    chunks = list(ask(client, stream=True))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices[0].finish_reason == "length"
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == text(ask(client))
    assert len({c.id for c in chunks}) == 1 and len(chunks) > 10


def test_a_stream_with_usage(client):
    chunks = list(ask(client, stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens == 24
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_the_helper_for_streams_puts_the_answer_together(client):
    options = {"messages": QUESTION, "temperature": 0, "extra_body": ENDS}
    with client.chat.completions.stream(model=MODEL, max_completion_tokens=100, **options) as s:
        kinds = {event.type for event in s}
        final = s.get_final_completion()
    assert {"chunk", "content.delta", "content.done"} <= kinds
    assert text(final) == text(ask(client, max_completion_tokens=100, **options))


def test_several_choices(client):
    options = {"n": 2, "temperature": 1, "seed": 5, "max_completion_tokens": 16}
    answer = ask(client, **options)
    assert [choice.index for choice in answer.choices] == [0, 1]
    texts = [choice.message.content for choice in answer.choices]
    assert texts[0] != texts[1] and answer.usage.completion_tokens <= 32
    streamed = ["", ""]
    for chunk in ask(client, stream=True, **options):
        for choice in chunk.choices:
            streamed[choice.index] += choice.delta.content or ""
    assert streamed == texts


def test_stop(client):
    whole = text(ask(client))
    word = whole.split()[2]
    answer = ask(client, stop=[word])
    assert answer.choices[0].finish_reason == "stop"
    assert text(answer) == whole[: whole.index(word)]
    streamed = "".join(c.choices[0].delta.content or "" for c in ask(client, stop=word, stream=True))
    assert streamed == text(answer)


def test_a_seed_gives_the_same_answer(client):
    one, two, other = (text(ask(client, temperature=1, seed=seed)) for seed in (7, 7, 8))
    assert one == two != other


def test_logprobs(client):
    answer = ask(client, logprobs=True, top_logprobs=3)
    entries = answer.choices[0].logprobs.content
    assert len(entries) == answer.usage.completion_tokens
    assert b"".join(bytes(e.bytes) for e in entries).decode() == text(answer)
    short = ask(client, max_completion_tokens=100, logprobs=True, extra_body=ENDS)
    assert short.choices[0].finish_reason == "stop"
    assert len(short.choices[0].logprobs.content) == short.usage.completion_tokens, "the last token has one too"
    for entry in entries:
        assert len(entry.top_logprobs) == 3 and entry.logprob <= 0
        best = entry.top_logprobs[0]
        assert (best.token, best.logprob) == (entry.token, entry.logprob), "greedy takes the likeliest"
    streamed = []
    for chunk in ask(client, logprobs=True, top_logprobs=3, stream=True):
        for choice in chunk.choices:
            streamed += choice.logprobs.content if choice.logprobs else []
    assert streamed == entries


def test_logit_bias(client, smollm2):
    ids = smollm2.http.post("/tokenize", json={"model": MODEL, "prompt": "zebra", "add_special_tokens": False}).json()
    token = ids["tokens"][0]
    forced = ask(client, logit_bias={str(token): 100}, max_completion_tokens=3, frequency_penalty=0)
    detokenized = smollm2.http.post("/detokenize", json={"model": MODEL, "tokens": [token] * 3}).json()
    assert text(forced) == detokenized["prompt"]


def test_penalties_change_what_repeats(client):
    options = {"max_completion_tokens": 80, "temperature": 0.01, "seed": 1, "extra_body": {"ignore_eos": True}}
    plain = ask(client, frequency_penalty=0, presence_penalty=0, **options)
    punished = ask(client, frequency_penalty=2, presence_penalty=2, **options)
    assert text(plain) != text(punished)
    variety = [len(set(text(answer).split())) / len(text(answer).split()) for answer in (plain, punished)]
    assert variety[1] > variety[0]


def test_limits_by_either_name(client):
    for name in ("max_tokens", "max_completion_tokens"):
        answer = client.chat.completions.create(model=MODEL, messages=QUESTION, temperature=0, **{name: 5})
        assert answer.usage.completion_tokens == 5


def test_content_parts_and_a_developer_message(client):
    parts = [{"type": "text", "text": "Why is the sky blue?"}]
    assert text(ask(client, messages=[{"role": "user", "content": parts}])) == text(ask(client))
    rule = "Answer in French."
    by_role = {
        role: ask(client, messages=[{"role": role, "content": rule}, *QUESTION]) for role in ("developer", "system")
    }
    assert text(by_role["developer"]) == text(by_role["system"])
    assert by_role["developer"].usage.prompt_tokens != ask(client).usage.prompt_tokens


def test_an_assistant_prefix_is_continued(client):
    messages = [*QUESTION, {"role": "assistant", "content": "Red, green and"}]
    options = {"continue_final_message": True, "add_generation_prompt": False}
    answer = ask(client, messages=messages, extra_body=options)
    separate = ask(client, messages=messages)
    assert answer.usage.prompt_tokens < separate.usage.prompt_tokens


def test_fields_of_other_servers(client):
    extras = {"top_k": 1, "min_p": 0.0, "repetition_penalty": 1.0, "ignore_eos": True, "skip_special_tokens": True}
    greedy = ask(client, extra_body={"repetition_penalty": 1.0, "ignore_eos": True}, max_completion_tokens=40)
    one = ask(client, temperature=1, extra_body=extras, max_completion_tokens=40)
    assert text(one) == text(greedy)
    assert one.usage.completion_tokens == 40


def test_completions(client, smollm2):
    options = {"model": MODEL, "prompt": "The capital of France is", "temperature": 0, "max_tokens": 8}
    answer = client.completions.create(**options)
    assert answer.usage.completion_tokens == 8 and answer.choices[0].finish_reason == "length"
    echoed = client.completions.create(echo=True, **options)
    assert echoed.choices[0].text == options["prompt"] + answer.choices[0].text
    # Before the end the reason is null, as OpenAI's API answers; the strict types have no null.
    stream = smollm2.client(_strict_response_validation=False).completions.create(stream=True, **options)
    streamed = "".join(chunk.choices[0].text for chunk in stream)
    assert streamed == answer.choices[0].text
    two = client.completions.create(**options | {"prompt": [options["prompt"], "Two and two is"]})
    assert [choice.index for choice in two.choices] == [0, 1] and two.choices[0].text == answer.choices[0].text


def test_completions_score_a_text(smollm2):
    # Nothing comes before the first token, so it has null, as OpenAI's API answers; the strict types have no null.
    client = smollm2.client(_strict_response_validation=False)
    options = {"model": MODEL, "prompt": "The capital of France is Paris", "logprobs": 2, "temperature": 0}
    scored = client.completions.create(echo=True, max_tokens=0, **options)
    found = scored.choices[0].logprobs
    assert scored.usage.completion_tokens == 0 and "".join(found.tokens) == options["prompt"]
    assert found.token_logprobs[0] is None and all(value <= 0 for value in found.token_logprobs[1:])
    assert len(found.tokens) == len(found.text_offset) == len(found.top_logprobs) == scored.usage.prompt_tokens
    other = client.completions.create(echo=True, max_tokens=0, **options | {"prompt": "The capital of France is Rome"})
    assert found.token_logprobs[-1] > other.choices[0].logprobs.token_logprobs[-1]


def cosine(a, b):
    return sum(x * y for x, y in zip(a, b)) / math.hypot(*a) / math.hypot(*b)


def test_embeddings(client, smollm2):
    texts = ["The cat sleeps.", "A kitten is asleep.", "Interest rates rose again."]
    answer = client.embeddings.create(model=MODEL, input=texts, encoding_format="float")
    cat, kitten, rates = (entry.embedding for entry in answer.data)
    assert [entry.index for entry in answer.data] == [0, 1, 2]
    assert math.isclose(math.hypot(*cat), 1, abs_tol=1e-4) and cosine(cat, kitten) > cosine(cat, rates)
    # Left out, the client asks for base64 and decodes it, after its strict validation would have looked.
    by_default = smollm2.client(_strict_response_validation=False).embeddings.create(model=MODEL, input=texts[0])
    assert by_default.data[0].embedding == pytest.approx(cat, abs=1e-6)
    raw = client.embeddings.with_raw_response.create(model=MODEL, input=texts[0], encoding_format="base64")
    data = base64.b64decode(raw.http_response.json()["data"][0]["embedding"])
    assert list(struct.unpack(f"<{len(data) // 4}f", data)) == pytest.approx(cat, abs=1e-6)
    assert answer.usage.prompt_tokens == answer.usage.total_tokens > 10
