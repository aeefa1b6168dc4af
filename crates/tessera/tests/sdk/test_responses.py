"""The newer interface by the official client: answers, all events of a stream, tools, structured output."""

import json

import openai
import pytest
from pydantic import BaseModel

MODEL = "smollm2"
TOOL = {
    "type": "function",
    "name": "clock",
    "description": "The time in a zone",
    "strict": True,
    "parameters": {
        "type": "object",
        "properties": {"zone": {"type": "string", "enum": ["utc", "local"]}},
        "required": ["zone"],
        "additionalProperties": False,
    },
}


def ask(client, **options):
    options = {"input": "Why is the sky blue?", "max_output_tokens": 24, "temperature": 0} | options
    return client.responses.create(model=MODEL, store=False, **options)


def test_an_answer(client):
    answer = ask(client)
    assert answer.output_text and answer.model == MODEL
    assert answer.status == "incomplete" and answer.incomplete_details.reason == "max_output_tokens"
    assert answer.usage.output_tokens == 24
    chat = client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "Why is the sky blue?"}], temperature=0,
        max_completion_tokens=24,
    )
    assert answer.output_text == chat.choices[0].message.content
    items = [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Why is the sky blue?"}]}]
    assert ask(client, input=items).output_text == answer.output_text
    assert ask(client, instructions="Answer in French.").usage.input_tokens != answer.usage.input_tokens


def test_every_event_of_a_stream(client):
    events = list(ask(client, stream=True))
    kinds = [event.type for event in events]
    assert kinds[:4] == [
        "response.created", "response.in_progress", "response.output_item.added", "response.content_part.added",
    ]
    assert kinds[-4:] == [
        "response.output_text.done", "response.content_part.done", "response.output_item.done", "response.incomplete",
    ]
    assert set(kinds[4:-4]) == {"response.output_text.delta"}
    assert [event.sequence_number for event in events] == list(range(len(events)))
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text == events[-4].text == events[-1].response.output_text == ask(client).output_text
    assert not any(type(event).__name__ == "object" for event in events)


def test_the_helper_for_streams(client):
    # A form ends the answer: when a small model stops is another with every conversion.
    schema = {
        "type": "object", "properties": {"colour": {"enum": ["red", "green"]}}, "required": ["colour"],
        "additionalProperties": False,
    }
    with client.responses.stream(
        model=MODEL, input="Name a colour.", max_output_tokens=100, temperature=0, store=False,
        text={"format": {"type": "json_schema", "name": "colour", "schema": schema, "strict": True}},
    ) as stream:
        for _ in stream:
            pass
        final = stream.get_final_response()
    assert final.status == "completed" and json.loads(final.output_text)["colour"] in ("red", "green")


def test_structured_output(client):
    class Answer(BaseModel):
        ripe: bool
        good: bool

    answer = client.responses.parse(
        model=MODEL, input="Is the apple ripe?", text_format=Answer, max_output_tokens=200, store=False
    )
    assert answer.status == "completed" and isinstance(answer.output_parsed, Answer)


def test_a_call_and_its_result(client):
    options = {"tools": [TOOL], "tool_choice": "required", "parallel_tool_calls": False, "max_output_tokens": 200}
    answer = ask(client, **options)
    call = next(item for item in answer.output if item.type == "function_call")
    assert call.name == "clock" and json.loads(call.arguments)["zone"] in ("utc", "local")
    events = list(ask(client, stream=True, **options))
    pieces = [e.delta for e in events if e.type == "response.function_call_arguments.delta"]
    done = next(e for e in events if e.type == "response.function_call_arguments.done")
    assert "".join(pieces) == done.arguments == call.arguments
    items = [
        {"role": "user", "content": "What time is it?"},
        *[item.model_dump(exclude_none=True) for item in answer.output],
        {"type": "function_call_output", "call_id": call.call_id, "output": "12:30"},
    ]
    after = ask(client, input=items, tools=[TOOL], tool_choice="none")
    assert after.output_text


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"tools": [{"type": "web_search"}], "tool_choice": "required"}, "tools[0]"),
        ({"background": True}, "background"),
        ({"truncation": "auto"}, "truncation"),
        ({"extra_body": {"frobnicate": 1}}, "frobnicate"),
    ],
)
def test_refusals(client, options, param):
    with pytest.raises(openai.BadRequestError) as refused:
        ask(client, **options)
    assert refused.value.param.startswith(param), refused.value.body
