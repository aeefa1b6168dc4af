"""Tools: calls that are asked for come, fit their schemas, and stream to the same calls."""

import json

import jsonschema
import openai
import pytest
from pydantic import BaseModel

MODEL = "smollm2"
SCHEMA = {
    "type": "object",
    "properties": {"city": {"enum": ["Rome", "Oslo", "Lima"]}, "unit": {"enum": ["celsius", "fahrenheit"]}},
    "required": ["city", "unit"],
    "additionalProperties": False,
}
WEATHER = {"name": "weather", "description": "The weather in a city", "parameters": SCHEMA}
CLOCK = {
    "name": "clock",
    "description": "The time in a zone",
    "parameters": {
        "type": "object",
        "properties": {"zone": {"enum": ["utc", "local"]}},
        "required": ["zone"],
        "additionalProperties": False,
    },
}
TOOLS = [{"type": "function", "function": function} for function in (WEATHER, CLOCK)]
QUESTION = [{"role": "user", "content": "What is the weather in Rome?"}]


def ask(client, **options):
    options = {"messages": QUESTION, "tools": TOOLS, "max_completion_tokens": 300, "temperature": 1, "seed": 4} | options
    return client.chat.completions.create(model=MODEL, **options)


def check(calls):
    schemas = {tool["function"]["name"]: tool["function"]["parameters"] for tool in TOOLS}
    assert calls and len({call.id for call in calls}) == len(calls)
    for call in calls:
        assert call.type == "function"
        jsonschema.validate(json.loads(call.function.arguments), schemas[call.function.name])


def assemble(stream):
    """What a client puts together from the deltas: calls, text, how it ended."""
    calls, text, reason = {}, "", None
    for chunk in stream:
        for choice in chunk.choices:
            text += choice.delta.content or ""
            reason = choice.finish_reason or reason
            for delta in choice.delta.tool_calls or []:
                call = calls.setdefault(delta.index, {"id": None, "name": "", "arguments": ""})
                call["id"] = delta.id or call["id"]
                call["name"] += delta.function.name or ""
                call["arguments"] += delta.function.arguments or ""
    return [calls[index] for index in sorted(calls)], text, reason


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "clock"}}])
@pytest.mark.parametrize("parallel", [True, False])
def test_calls_that_must_come(client, choice, parallel):
    options = {"tool_choice": choice, "parallel_tool_calls": parallel}
    answer = ask(client, **options).choices[0]
    assert answer.finish_reason in ("tool_calls", "stop"), answer
    calls = answer.message.tool_calls
    check(calls)
    if not parallel:
        assert len(calls) == 1
    if choice != "required":
        assert {call.function.name for call in calls} == {"clock"}
    streamed, text, reason = assemble(ask(client, stream=True, **options))
    assert reason == answer.finish_reason and text == (answer.message.content or "")
    assert [(c["name"], c["arguments"]) for c in streamed] == [
        (c.function.name, c.function.arguments) for c in calls
    ]
    assert all(c["id"] for c in streamed)


def test_auto_and_none(client):
    answer = ask(client, temperature=0, max_completion_tokens=80).choices[0]
    if answer.message.tool_calls:
        check(answer.message.tool_calls)
    else:
        assert answer.message.content
    streamed, text, reason = assemble(ask(client, temperature=0, max_completion_tokens=80, stream=True))
    assert (text, reason) == (answer.message.content or "", answer.finish_reason)
    assert len(streamed) == len(answer.message.tool_calls or [])
    none = ask(client, tool_choice="none", temperature=0, max_completion_tokens=20)
    plain = client.chat.completions.create(
        model=MODEL, messages=QUESTION, temperature=0, max_completion_tokens=20
    )
    assert none.choices[0].message.tool_calls is None
    assert none.choices[0].message.content == plain.choices[0].message.content


def test_the_whole_loop(client):
    first = ask(client, tool_choice="required", parallel_tool_calls=False)
    call = first.choices[0].message.tool_calls[0]
    messages = [
        *QUESTION,
        first.choices[0].message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": "21 degrees, sunny"},
    ]
    answer = ask(client, messages=messages, temperature=0, max_completion_tokens=40)
    alone = ask(client, messages=QUESTION, temperature=0, max_completion_tokens=40)
    assert answer.usage.prompt_tokens > alone.usage.prompt_tokens, "the model sees the call and its result"
    for wrong in ("call_unknown", None):
        messages[-1] = {"role": "tool", "tool_call_id": wrong, "content": "x"}
        with pytest.raises(openai.BadRequestError) as refused:
            ask(client, messages=messages)
        assert refused.value.param.startswith("messages[2]"), refused.value.body


def test_the_client_parses_arguments(client):
    class Weather(BaseModel):
        """The weather in a city."""

        city: str
        celsius: bool

    tool = openai.pydantic_function_tool(Weather)
    assert tool["function"]["strict"]
    tool["function"]["parameters"]["properties"]["city"]["enum"] = ["Rome", "Oslo"]
    answer = client.chat.completions.parse(
        model=MODEL, messages=QUESTION, tools=[tool], tool_choice="required", parallel_tool_calls=False,
        max_completion_tokens=200,
    )
    parsed = answer.choices[0].message.tool_calls[0].function.parsed_arguments
    assert isinstance(parsed, Weather) and parsed.city in ("Rome", "Oslo")


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"tool_choice": {"type": "function", "function": {"name": "nothing"}}}, "tool_choice"),
        ({"tools": [{"type": "web_search"}]}, "tools[0]"),
        ({"tools": [*TOOLS, TOOLS[0]]}, "tools[2]"),
        ({"tools": [], "tool_choice": "required"}, "tool_choice"),
    ],
)
def test_refusals(client, options, param):
    with pytest.raises(openai.BadRequestError) as refused:
        ask(client, **options)
    assert refused.value.param.startswith(param), refused.value.body
