"""schemathesis makes requests from OpenAI's own schema, good and bad; no answer is a 500 or has a wrong shape.

`openai.json` is OpenAI's document (MIT licence), cut by `scripts/cut-openai-schema`. `TESSERA_EXAMPLES` says how many
requests of each operation are made up (20); each is then mended until it is answered.
"""

import collections
import os
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from server import noise_model, serving

CHECKS = [not_a_server_error, content_type_conformance, response_schema_conformance, status_code_conformance]
EXAMPLES = int(os.environ.get("TESSERA_EXAMPLES", 20))
MESSAGE = [{"role": "user", "content": "Hi"}]
PLAIN = {"messages": MESSAGE, "input": "Hi", "prompt": "Hi"}
"""What takes the place of a conversation that is refused."""

schema = schemathesis.openapi.from_path(Path(__file__).with_name("openai.json"))
answers = collections.defaultdict(collections.Counter)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    # A short context, for the requests that set no end to their answer.
    with serving(f"noise={noise_model(tmp_path_factory.mktemp('m') / 'm', 256)}", "--timeout", 60) as server:
        yield server


def tame(body):
    """The served model, and answers that end soon; nothing else is changed."""
    body["model"] = "noise"
    for name in ("max_tokens", "max_completion_tokens", "max_output_tokens"):
        if isinstance(body.get(name), int):
            body[name] = min(body[name], 4)
    if not isinstance(body.get("n"), (int, type(None))) or (body.get("n") or 0) > 2:
        body.pop("n", None)
    body.pop("stream", None), body.pop("stream_options", None)


@schema.parametrize()
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_every_operation(case, served):
    if case.operation.path == "/models/{model}" and len(answers[case.operation.path]) % 2:
        case.path_parameters["model"] = "noise"
    url = served.url + "/v1"
    reply = case.call_and_validate(base_url=url, checks=CHECKS)
    answers[case.operation.path][reply.status_code] += 1
    # Another method, another type of content: there is nothing to mend.
    if not isinstance(case.body, dict) or reply.status_code in (405, 415):
        return
    # Whatever `param` names is left out, or made plain, until the request is answered. A `param` that named the
    # wrong field would not get there.
    tame(case.body)
    for _ in range(60):
        reply = case.call_and_validate(base_url=url, checks=CHECKS)
        answers[case.operation.path][reply.status_code] += 1
        if reply.status_code == 200:
            return
        error = reply.json()["error"]
        assert reply.status_code == 400, error
        assert error["param"] is not None, error
        # Names of fields may have points themselves.
        begins = [name for name in case.body if (error["param"] + ".").startswith((name + ".", name + "["))]
        name = max(begins, key=len, default=error["param"])
        if name in PLAIN and case.body.get(name) != PLAIN[name]:
            case.body[name] = PLAIN[name]
        else:
            assert name in case.body, error
            del case.body[name]
    pytest.fail(f"{case.body} is refused for ever: {error}")


def test_there_were_answers_of_both_kinds():
    for path in ("/chat/completions", "/completions", "/embeddings", "/responses"):
        counts = answers[path]
        assert counts[200] >= EXAMPLES / 2 and counts[400] >= EXAMPLES / 2, (path, counts)
    assert answers["/models"][200] and answers["/models/{model}"][404] and answers["/models/{model}"][200]
