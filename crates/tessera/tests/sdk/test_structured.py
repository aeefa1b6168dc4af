"""Structured output: what is promised holds for a small model that would never do it by itself."""

import json
import re
from enum import Enum

import openai
import pytest
from pydantic import BaseModel

MODEL = "smollm2"


class Colour(str, Enum):
    red = "red"
    green = "green"
    blue = "blue"


def messages(text):
    return [{"role": "user", "content": text}]


@pytest.mark.parametrize("seed", range(3))
def test_a_pydantic_model_is_parsed(client, seed):
    class Answer(BaseModel):
        colour: Colour
        ripe: bool
        kind: Colour | None

    answer = client.chat.completions.parse(
        model=MODEL, messages=messages("Describe an apple."), response_format=Answer, temperature=1, seed=seed,
        max_completion_tokens=300,
    )
    assert answer.choices[0].finish_reason == "stop"
    assert isinstance(answer.choices[0].message.parsed, Answer)


def test_nested_models_and_lists(client):
    class Item(BaseModel):
        name: Colour
        good: bool

    class Basket(BaseModel):
        first: Item
        second: Item

    answer = client.chat.completions.parse(
        model=MODEL, messages=messages("What is in the basket?"), response_format=Basket, max_completion_tokens=300,
    )
    assert isinstance(answer.choices[0].message.parsed.second, Item)


def test_a_stream_is_parsed(client):
    class Answer(BaseModel):
        colour: Colour
        ripe: bool

    options = {"model": MODEL, "messages": messages("Describe an apple."), "temperature": 0}
    with client.chat.completions.stream(response_format=Answer, max_completion_tokens=200, **options) as stream:
        for _ in stream:
            pass
        final = stream.get_final_completion()
    whole = client.chat.completions.parse(response_format=Answer, max_completion_tokens=200, **options)
    assert final.choices[0].message.parsed == whole.choices[0].message.parsed


def test_any_object(client):
    answer = client.chat.completions.create(
        model=MODEL, messages=messages("Answer in JSON: what is your name?"), temperature=0,
        response_format={"type": "json_object"}, max_completion_tokens=200,
    )
    choice = answer.choices[0]
    if choice.finish_reason == "stop":
        assert isinstance(json.loads(choice.message.content), dict)
    else:
        assert choice.finish_reason == "length" and choice.message.content.lstrip().startswith("{")


@pytest.mark.parametrize(
    ("extra", "fits"),
    [
        ({"guided_regex": r"[0-9]{3}-[0-9]{4}"}, r"\d{3}-\d{4}"),
        ({"guided_choice": ["left", "right"]}, "left|right"),
        ({"guided_grammar": 'start: "a" DIGIT DIGIT\nDIGIT: /[0-3]/\n'}, "a[0-3]{2}"),
        ({"structured_outputs": {"regex": "(ab){2,4}"}}, "(ab){2,4}"),
        ({"response_format": {"type": "regex", "regex": "x=-?[1-9][0-9]?"}}, "x=-?[1-9][0-9]?"),
        ({"guided_json": {"enum": [1, "two", None]}}, '1|"two"|null'),
    ],
)
def test_other_grammars(client, extra, fits):
    answer = client.chat.completions.create(
        model=MODEL, messages=messages("Say something."), temperature=1, seed=1, max_completion_tokens=60,
        extra_body=extra,
    )
    assert answer.choices[0].finish_reason == "stop"
    assert re.fullmatch(fits, answer.choices[0].message.content)


def test_a_schema_that_cannot_be_enforced_is_refused(client):
    schema = {"type": "object", "properties": {"tags": {"type": "string", "pattern": "(?=a)b"}}}
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(
            model=MODEL, messages=messages("Hi"),
            response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": schema}},
        )
    assert "look-around" in refused.value.message and "/properties/tags/pattern" in refused.value.message
    assert refused.value.param.startswith("response_format")
