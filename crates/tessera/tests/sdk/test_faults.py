"""Requests that are meant to hurt: memory stays flat, grammars that explode are refused, others are served on."""

import json
import threading

import pytest

from server import noise_model, serving, until

CHAT = "/v1/chat/completions"


def body(**options):
    messages = [{"role": "user", "content": "Hi"}]
    return {"model": "noise", "messages": messages, "max_tokens": 8, "ignore_eos": True} | options


def schema_format(schema):
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}}


def nested(depth, inside):
    for _ in range(depth):
        inside = {"type": "object", "properties": {"a": inside}, "required": ["a"]}
    return inside


def explosion():
    """Every definition is the next one, ten times over: 10^12 alternatives in 2 kB."""
    names = [f"d{i}" for i in range(13)]
    following = zip(names, names[1:])
    definitions = {a: {"allOf": [{"anyOf": [{"$ref": f"#/$defs/{b}"}] * 10}]} for a, b in following}
    return {"$ref": "#/$defs/d0", "$defs": definitions | {names[-1]: {"type": "integer"}}}


BOMBS = {
    "repeats of repeats": {"guided_regex": "(((a{1,100}){1,100}){1,100}){1,100}b"},
    "states that double": {"guided_regex": "(a|b)*a" + "(a|b)" * 200},
    "an intersection": {"guided_grammar": 'start: /(.*a.{40}b)/ & /(.*b.{50}a)/ & ~/.*(ab){30}.*/\n'},
    "a long choice": {"guided_choice": [f"{i}{'x' * 500}" for i in range(1000)]},
    "rules without end": {"guided_grammar": "start: start start | start\n"},
    "ambiguity": {"guided_grammar": 'start: e\ne: e e | e e e | "a" | ""\n', "max_tokens": 64},
    "nesting": {"guided_json": nested(60, {"type": "integer"})},
    "nesting in a string": {"guided_json": '{"properties":{"a":' * 10_000 + "{}" + "}}" * 10_000},
    "references that multiply": schema_format(explosion()),
    "a reference to itself": schema_format({"$ref": "#"}),
    "a pattern": schema_format({"type": "string", "pattern": "^(([a-z]{1,90}){1,90}){1,90}$"}),
    "many properties": schema_format({"properties": {f"p{i}": {"type": "integer"} for i in range(20_000)}}),
    "wide numbers": schema_format({"type": "integer", "minimum": -(10**300), "maximum": 10**300, "multipleOf": 7}),
    "long arrays": schema_format({"type": "array", "items": {"type": "integer"}, "minItems": 10**9}),
    "long strings": schema_format({"type": "string", "minLength": 10**9}),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving(f"noise={noise_model(tmp_path_factory.mktemp('m') / 'm')}", "--timeout", 60) as server:
        yield server


@pytest.mark.parametrize("name", BOMBS)
def test_a_grammar_that_explodes(server, name):
    reply, others = [], []
    thread = threading.Thread(target=lambda: reply.append(server.http.post(CHAT, json=body() | BOMBS[name])))
    thread.start()
    # Meanwhile others are served.
    while thread.is_alive():
        others.append(server.http.post(CHAT, json=body(max_tokens=2)).status_code)
    thread.join()
    assert set(others) <= {200}
    (reply,) = reply
    answer = reply.json()
    if reply.status_code == 200:
        assert answer["choices"][0]["finish_reason"] in ("stop", "length")
    else:
        assert reply.status_code == 400, answer
        assert answer["error"]["param"] or answer["error"]["code"] == "grammar_failed", answer
    assert server.http.post(CHAT, json=body()).status_code == 200
    until("nothing runs", lambda: server.metric("tessera_requests_running", "noise") == 0)


def mixed(server, i):
    """One request of each kind: whole, streamed, given up, refused, with a grammar, with a tool, embedded."""
    text = [{"role": "user", "content": f"Request {i}"}]
    kind = i % 7
    if kind == 0:
        assert server.http.post(CHAT, json=body(messages=text, n=2)).status_code == 200
    elif kind == 1:
        assert server.http.post(CHAT, json=body(messages=text, stream=True)).text.endswith("data: [DONE]\n\n")
    elif kind == 2:
        with server.http.stream("POST", CHAT, json=body(messages=text, stream=True, max_tokens=400)) as reply:
            chunks = reply.iter_raw()
            next(chunks)
    elif kind == 3:
        assert server.http.post(CHAT, json=body(messages=text, temperature=9)).status_code == 400
    elif kind == 4:
        schema = {"type": "object", "properties": {"a": {"enum": [i, "x"]}}, "required": ["a"]}
        assert server.http.post(CHAT, json=body(max_tokens=40) | schema_format(schema)).status_code == 200
    elif kind == 5:
        tool = {"type": "function", "function": {"name": f"f{i}", "parameters": {"type": "object", "properties": {}}}}
        assert server.http.post(CHAT, json=body(tools=[tool], tool_choice="required")).status_code == 200
    else:
        reply = server.http.post("/v1/embeddings", json={"model": "noise", "input": f"Request {i}"})
        assert reply.status_code == 200, reply.text


def test_memory_is_flat(noise):
    with serving(f"noise={noise}", "--context", 512, "--max-sequences", 4) as server:
        # The tenth of each kind.
        for i in range(70):
            mixed(server, i)
        before = server.rss()
        for i in range(70, 500):
            mixed(server, i)
        until("nothing runs", lambda: server.metric("tessera_requests_running", "noise") == 0)
        after = server.rss()
        print(json.dumps({"before": before, "after": after}))
        assert after <= before * 1.02, f"{before} bytes after 70 requests, {after} after 500"
