"""Refusals arrive as the client's own exceptions, and a request that is given up ends."""

import threading

import openai
import pytest

from server import serving, until

MODEL = "smollm2"
HELLO = [{"role": "user", "content": "Hello"}]


def ask(client, **options):
    options = {"model": MODEL, "messages": HELLO, "max_completion_tokens": 4} | options
    return client.chat.completions.create(**options)


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"extra_body": {"frobnicate": 1}}, "frobnicate"),
        ({"temperature": 3}, "temperature"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"max_completion_tokens": 0}, "max_completion_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": 7}]}, "messages[0].content"),
        ({"audio": {"voice": "x", "format": "wav"}}, "audio"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"store": True}, "store"),
        ({"reasoning_effort": "high"}, "reasoning_effort"),
        ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
    ],
)
def test_a_field_is_refused_by_name(client, options, param):
    with pytest.raises(openai.BadRequestError) as refused:
        ask(client, **options)
    assert refused.value.param is not None and refused.value.param.startswith(param), refused.value.body
    assert refused.value.type == "invalid_request_error" and param.split("[")[0] in refused.value.message


def test_a_prompt_that_does_not_fit(client):
    with pytest.raises(openai.BadRequestError) as refused:
        ask(client, messages=[{"role": "user", "content": "word " * 5000}])
    assert refused.value.code == "context_length_exceeded"
    assert "4096" in refused.value.message and "50" in refused.value.message


def test_a_model_that_is_not_there(client):
    with pytest.raises(openai.NotFoundError) as refused:
        ask(client, model="gpt-5")
    assert refused.value.code == "model_not_found" and MODEL in refused.value.message
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-5")


def test_a_stream_that_is_refused_raises_before_it_begins(client):
    with pytest.raises(openai.BadRequestError):
        ask(client, stream=True, temperature=-1)


def test_keys_and_rates(noise):
    with serving(f"noise={noise}", "--rate-limit", 2, env={"TESSERA_API_KEY": "right"}) as server:
        with pytest.raises(openai.AuthenticationError) as refused:
            ask(server.client(api_key="wrong"), model="noise")
        assert refused.value.code == "invalid_api_key"
        client = server.client(api_key="right")
        for _ in range(2):
            ask(client, model="noise")
        with pytest.raises(openai.RateLimitError) as refused:
            ask(client, model="noise")
        assert int(refused.value.response.headers["retry-after"]) >= 1


def test_a_full_queue_is_an_error_that_the_client_may_repeat(noise):
    with serving(f"noise={noise}", "--max-sequences", 1, "--queue", 1) as server:
        client = server.client()
        endless = {"model": "noise", "stream": True, "max_completion_tokens": 8000, "extra_body": {"ignore_eos": True}}
        running = ask(client, **endless)
        next(iter(running))
        # The first chunk names the role: it is sent before the engine has taken the request up.
        server.until_metric("tessera_requests_running", "noise", 1)
        waiting = threading.Thread(target=lambda: ask(server.client(), model="noise"))
        waiting.start()
        server.until_metric("tessera_requests_waiting", "noise", 1)
        with pytest.raises(openai.InternalServerError) as refused:
            ask(client, model="noise")
        assert (refused.value.status_code, refused.value.code) == (503, "queue_full")
        assert int(refused.value.response.headers["retry-after"]) >= 1
        running.close()
        waiting.join()
        # With its own repeats the client gets through a queue that is full for a moment.
        assert ask(server.client(max_retries=5), model="noise").usage.completion_tokens <= 4


@pytest.mark.parametrize("kind", ["stream", "plain"])
def test_a_request_that_is_given_up_ends(noise, kind):
    with serving(f"noise={noise}") as server:
        endless = {"model": "noise", "max_completion_tokens": 8000, "extra_body": {"ignore_eos": True}}
        if kind == "stream":
            stream = ask(server.client(), stream=True, **endless)
            next(iter(stream))
            server.until_metric("tessera_requests_running", "noise", 1)
            stream.close()
        else:
            with pytest.raises(openai.APITimeoutError):
                ask(server.client(timeout=0.5), **endless)
        server.until_metric("tessera_requests_running", "noise", 0)
        until("it is counted", lambda: server.metric("tessera_generations_cancelled_total", "noise") == 1)
        assert server.metric("tessera_kv_pages_used", "noise") == 0
