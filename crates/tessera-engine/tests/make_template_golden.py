"""Makes tests/data/templates.golden.json and constructs.golden.json: what Python's Jinja makes of chat
templates, and of the constructs in template_constructs.py.

    pip install jinja2
    python3 make_template_golden.py                   # both files
    python3 make_template_golden.py FOLDER... > FILE  # the templates of Hugging Face folders

The environment is the one that transformers sets up. The templates are written for this test in the
shapes that the named families use. Other people's templates are compared by `scripts/compare-templates`
and not kept.
"""

import functools
import json
import pathlib
import re
import sys
from datetime import datetime, timezone

from jinja2 import ext, nodes
from jinja2.exceptions import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from template_constructs import CONSTRUCTS, VARIABLES

NOW = 1735689599  # 2024-12-31 23:59:59 UTC

TEMPLATES = {
    "chatml": "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "llama-3": "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}",
    "llama-2": "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}{% for message in loop_messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if loop.index0 == 0 and system_message != false %}{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}{% else %}{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}",
    "mistral": "{%- if messages[0]['role'] == 'system' %}\n    {%- set system_message = messages[0]['content'] %}\n    {%- set loop_messages = messages[1:] %}\n{%- else %}\n    {%- set loop_messages = messages %}\n{%- endif %}\n\n{{- bos_token }}\n{%- for message in loop_messages %}\n    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}\n        {{- raise_exception('After the optional system message, conversation roles must alternate user/assistant/user/assistant/...') }}\n    {%- endif %}\n    {%- if message['role'] == 'user' %}\n        {%- if loop.first and system_message is defined %}\n            {{- ' [INST] ' + system_message + '\\n\\n' + message['content'] + ' [/INST]' }}\n        {%- else %}\n            {{- ' [INST] ' + message['content'] + ' [/INST]' }}\n        {%- endif %}\n    {%- elif message['role'] == 'assistant' %}\n        {{- ' ' + message['content'] + eos_token}}\n    {%- else %}\n        {{- raise_exception('Only user and assistant roles are supported, with the exception of an initial optional system message!') }}\n    {%- endif %}\n{%- endfor %}\n",
    "gemma": "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}",
    "phi-3": "{% for message in messages %}{% if message['role'] == 'system' %}{{'<|system|>\n' + message['content'] + '<|end|>\n'}}{% elif message['role'] == 'user' %}{{'<|user|>\n' + message['content'] + '<|end|>\n'}}{% elif message['role'] == 'assistant' %}{{'<|assistant|>\n' + message['content'] + '<|end|>\n'}}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}",
    "zephyr": "{% for message in messages %}\n{% if message['role'] == 'user' %}\n{{ '<|user|>\n' + message['content'] + eos_token }}\n{% elif message['role'] == 'system' %}\n{{ '<|system|>\n' + message['content'] + eos_token }}\n{% elif message['role'] == 'assistant' %}\n{{ '<|assistant|>\n'  + message['content'] + eos_token }}\n{% endif %}\n{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}",
    "qwen-tools": '{%- if tools %}\n    {{- \'<|im_start|>system\\n\' }}\n    {%- if messages[0].role == \'system\' %}\n        {{- messages[0].content + \'\\n\\n\' }}\n    {%- endif %}\n    {{- "# Tools\\n\\nYou may call one or more functions to assist with the user query.\\n\\n<tools>" }}\n    {%- for tool in tools %}\n        {{- "\\n" }}\n        {{- tool | tojson }}\n    {%- endfor %}\n    {{- "\\n</tools><|im_end|>\\n" }}\n{%- elif messages[0].role == \'system\' %}\n    {{- \'<|im_start|>system\\n\' + messages[0].content + \'<|im_end|>\\n\' }}\n{%- endif %}\n{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}\n{%- for message in messages[::-1] %}\n    {%- set index = (messages|length - 1) - loop.index0 %}\n    {%- if ns.multi_step_tool and message.role == "user" and message.content is string and not(message.content.startswith(\'<tool_response>\') and message.content.endswith(\'</tool_response>\')) %}\n        {%- set ns.multi_step_tool = false %}\n        {%- set ns.last_query_index = index %}\n    {%- endif %}\n{%- endfor %}\n{%- for message in messages %}\n    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}\n        {{- \'<|im_start|>\' + message.role + \'\\n\' + message.content + \'<|im_end|>\' + \'\\n\' }}\n    {%- elif message.role == "assistant" %}\n        {%- set content = message.content if message.content is string else \'\' %}\n        {%- set reasoning_content = \'\' %}\n        {%- if \'</think>\' in content %}\n            {%- set reasoning_content = content.split(\'</think>\')[0].rstrip(\'\\n\').split(\'<think>\')[-1].lstrip(\'\\n\') %}\n            {%- set content = content.split(\'</think>\')[-1].lstrip(\'\\n\') %}\n        {%- endif %}\n        {%- if loop.index0 > ns.last_query_index and reasoning_content %}\n            {{- \'<|im_start|>\' + message.role + \'\\n<think>\\n\' + reasoning_content.strip(\'\\n\') + \'\\n</think>\\n\\n\' + content.lstrip(\'\\n\') }}\n        {%- else %}\n            {{- \'<|im_start|>\' + message.role + \'\\n\' + content }}\n        {%- endif %}\n        {%- if message.tool_calls %}\n            {%- for tool_call in message.tool_calls %}\n                {%- if (loop.first and content) or (not loop.first) %}\n                    {{- \'\\n\' }}\n                {%- endif %}\n                {%- if tool_call.function %}\n                    {%- set tool_call = tool_call.function %}\n                {%- endif %}\n                {{- \'<tool_call>\\n{"name": "\' }}\n                {{- tool_call.name }}\n                {{- \'", "arguments": \' }}\n                {%- if tool_call.arguments is string %}\n                    {{- tool_call.arguments }}\n                {%- else %}\n                    {{- tool_call.arguments | tojson }}\n                {%- endif %}\n                {{- \'}\\n</tool_call>\' }}\n            {%- endfor %}\n        {%- endif %}\n        {{- \'<|im_end|>\\n\' }}\n    {%- elif message.role == "tool" %}\n        {%- if loop.first or (messages[loop.index0 - 1].role != "tool") %}\n            {{- \'<|im_start|>user\' }}\n        {%- endif %}\n        {{- \'\\n<tool_response>\\n\' }}\n        {{- message.content }}\n        {{- \'\\n</tool_response>\' }}\n        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}\n            {{- \'<|im_end|>\\n\' }}\n        {%- endif %}\n    {%- endif %}\n{%- endfor %}\n{%- if add_generation_prompt %}\n    {{- \'<|im_start|>assistant\\n\' }}\n    {%- if enable_thinking is defined and enable_thinking is false %}\n        {{- \'<think>\\n\\n</think>\\n\\n\' }}\n    {%- endif %}\n{%- endif %}',
    "llama-3.1-date": "{{- bos_token }}\n{%- if not date_string is defined %}\n    {%- if strftime_now is defined %}\n        {%- set date_string = strftime_now(\"%d %b %Y\") %}\n    {%- else %}\n        {%- set date_string = \"26 Jul 2024\" %}\n    {%- endif %}\n{%- endif %}\n{%- if not tools is defined %}\n    {%- set tools = none %}\n{%- endif %}\n{{- \"Today Date: \" + date_string + \"\\n\\n\" }}\n{%- if tools is not none %}\n    {%- for t in tools %}\n        {{- t | tojson(indent=4) }}\n        {{- \"\\n\\n\" }}\n    {%- endfor %}\n{%- endif %}\n{%- for message in messages %}\n    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ (message['content'] or '') | trim + '<|eot_id|>' }}\n{%- endfor %}\n",
    "odds-and-ends": "{%- macro show(x, n=2) -%}[{{ x|upper }}{{ '!' * n }}]{%- endmacro -%}\n{% for m in messages %}\n  {% if m.role == 'system' %}{% continue %}{% endif %}\n{{ loop.index }}/{{ loop.length }} {{ show(m.role, n=loop.index) }} {{ m.content | default('none', true) | replace('\\n', ' ') }} {{ m.get('name', 'nobody') }} {{ m.name is defined }} {{ none }}\n  {% if loop.index > 3 %}{% break %}{% endif %}\n{% endfor %}\n{% for k, v in {'a': 1.0, 'b': [1, 2.5e-7, 'ä', None, True]}.items() %}{{ k }}={{ v | tojson }};{% endfor %}\n{{ messages | map(attribute='role') | join(',') }} {{ (messages | selectattr('role', 'equalto', 'user') | list) | length }}{# gone #}\n{{ 'a b  c'.split() | length }} {{ 'x'.join(['1', '2']) }} {{ 7 // 2 }} {{ 'Hello'[1:3] }} {{ messages[-1].role.title() }}\n",
}

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Weather in a city — today's <b>\"forecast\"</b> & more",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1, "maximum": 1.5}},
                "required": ["city"],
            },
        },
    }
]

U = {"role": "user", "content": "Hi there"}
A = {"role": "assistant", "content": "Hello! \n"}
CONVERSATIONS = {
    "one question": [U],
    "system": [{"role": "system", "content": "Be brief."}, U],
    "three turns": [U, A, {"role": "user", "content": "  {{ 1 }} {% raw %} $& é 🙂\n\nnew"}],
    "all": [{"role": "system", "content": "S"}, U, A, {"role": "user", "content": "again", "name": "Ann"}, A],
    "two users": [U, U],
    "reasoning": [U, {"role": "assistant", "content": "<think>\nhm\n</think>\n\nyes"}, {"role": "user", "content": "?"}],
    "tool call": [
        U,
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"type": "function", "function": {"name": "get_weather", "arguments": {"city": "Köln", "days": 2}}}],
        },
        {"role": "tool", "content": '{"t": 3}'},
        {"role": "tool", "content": "sunny"},
    ],
    "everything": [
        {"role": "system", "content": "  Be brief. "},
        {"role": "user", "content": "é 🙂 <b>\"x\"</b>\n"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Köln"}'}},
                {"id": "call_2", "type": "function", "function": {"name": "get_weather", "arguments": {}}},
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "name": "get_weather", "content": "rain"},
        {"role": "tool", "tool_call_id": "call_2", "name": "get_weather", "content": ""},
        {"role": "assistant", "content": "It rains."},
        {"role": "user", "content": ""},
    ],
}


# Of other people's templates: reasoning and tools in the history, in each way that clients send them.
WEATHER = {"name": "get_weather", "arguments": {"city": "Köln", "days": [1, 2.0], "units": None, "brief": True}}
MORE_CONVERSATIONS = {
    "reasoning content": [
        {"role": "system", "content": "Be brief."},
        U,
        {"role": "assistant", "content": "Yes.", "reasoning_content": "It is asked\nwhether."},
        {"role": "user", "content": "Why?"},
    ],
    "reasoning before a call": [
        U,
        {
            "role": "assistant",
            "content": "",
            "reasoning_content": "I look it up.",
            "thinking": "I look it up.",
            "tool_calls": [{"id": "abcdefghi", "type": "function", "function": WEATHER}],
        },
        {"role": "tool", "tool_call_id": "abcdefghi", "content": '{"temperature": 3}'},
    ],
    "a call after a text": [
        U,
        {
            "role": "assistant",
            "content": "<think>\nhm\n</think>\n\nI look.",
            "tool_calls": [
                {"id": "abcdefghi", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Köln"}'}},
            ],
        },
        {"role": "tool", "tool_call_id": "abcdefghi", "name": "get_weather", "content": "rain"},
        {"role": "assistant", "content": "It rains.", "reasoning_content": "Rain it is."},
        {"role": "user", "content": "And tomorrow?"},
    ],
    "two calls with the arguments as text": [
        U,
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "abcdefghi", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Köln"}'}},
                {"id": "jklmnopqr", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}},
            ],
        },
        {"role": "tool", "tool_call_id": "abcdefghi", "content": "rain"},
        {"role": "tool", "tool_call_id": "jklmnopqr", "content": "sun"},
    ],
    "two calls": [
        {"role": "developer", "content": "Be brief."},
        U,
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "abcdefghi", "type": "function", "function": WEATHER},
                {"id": "jklmnopqr", "type": "function", "function": {"name": "get_weather", "arguments": {}}},
            ],
        },
        {"role": "tool", "tool_call_id": "abcdefghi", "content": "rain"},
        {"role": "tool", "tool_call_id": "jklmnopqr", "content": "sun"},
        {"role": "user", "content": "Thanks"},
    ],
    "nothing": [],
}
MORE_TOOLS = TOOLS + [
    {
        "type": "function",
        "function": {
            "name": "search",
            "description": "Finds\npages",
            "strict": True,
            "parameters": {
                "type": "object",
                "properties": {
                    "query": {"type": ["string", "null"], "description": "Words", "default": "a"},
                    "where": {"enum": ["web", "mail"], "type": "string"},
                    "limits": {"type": "array", "items": {"type": "number"}},
                    "from": {"anyOf": [{"type": "integer"}, {"type": "string"}], "nullable": True},
                    "with": {"type": "object", "properties": {"deep": {"type": "boolean"}}, "required": ["deep"]},
                },
            },
        },
    },
    {"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {}}}},
]
# What a template may ask for besides, if it does.
SWITCHES = [
    {"enable_thinking": True},
    {"enable_thinking": False},
    {"thinking": True},
    {"thinking": False},
    {"reasoning_effort": "low"},
    {"reasoning_effort": "high"},
    {"thinking_budget": 512},
    {"thinking_budget": 0},
    {"preserve_thinking": True},
    {"clear_thinking": False},
    {"builtin_tools": ["browser", "python"], "model_identity": "You are a test."},
    {"date_string": "1 Jan 2026"},
    {"tools_in_user_message": False},
    {"add_vision_id": True},
]


class Raised(TemplateError):
    """An error that the template itself raises."""


class Generation(ext.Extension):
    """`{% generation %}` marks what the model said; it leaves no text."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller):
        return caller()


class Names(Namespace):
    """A namespace without names that begin with an underscore."""

    def __init__(*args, **kwargs):
        self, args = args[0], args[1:]
        attributes = dict(*args, **kwargs)
        for name in attributes:
            Names.check(name)
        Namespace.__init__(self, attributes)

    def __setitem__(self, name, value):
        Names.check(name)
        Namespace.__setitem__(self, name, value)

    @staticmethod
    def check(name):
        if isinstance(name, str) and name.startswith("_"):
            raise TypeError(name)


def environment():
    env = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, ext.loopcontrols]
    )

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    def raise_exception(message):
        raise Raised(message)

    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    now = datetime.fromtimestamp(NOW, timezone.utc).replace(tzinfo=None)
    env.globals["strftime_now"] = now.strftime
    env.globals["namespace"] = Names
    return env


compiled = functools.cache(lambda source: environment().from_string(source))


def outcome(source, **variables):
    try:
        return {"text": compiled(source).render(**variables)}
    except Raised as error:
        return {"raised": str(error)}
    except TypeError as error:
        # A loop over `none`, which is over nothing here, and `map(...) | tojson`, which is a list here.
        known = ("'NoneType' object is not iterable", "Object of type generator is not JSON serializable")
        return {"failed": True, **({"rendered_here": True} if str(error) in known else {})}
    except Exception:
        return {"failed": True}


def cases(templates, tokens, with_tools):
    """Every template with every conversation."""
    for name, source in templates.items():
        for what, messages in CONVERSATIONS.items():
            for tools in (None, TOOLS) if with_tools(name) else (None,):
                for generate in (False, True):
                    result = outcome(
                        source,
                        messages=messages,
                        tools=tools,
                        documents=None,
                        add_generation_prompt=generate,
                        **tokens(name),
                    )
                    yield {"template": name, "conversation": what, "tools": tools is not None, "generate": generate, **result}


def golden(templates, tokens, with_tools=lambda name: True):
    found = list(cases(templates, tokens, with_tools))
    return {"now": NOW, "templates": templates, "tools": TOOLS, "conversations": CONVERSATIONS, "cases": found}


def write(name, value):
    path = pathlib.Path(__file__).parent / "data" / name
    for case in value["cases"]:
        case.pop("rendered_here", None)
    path.write_text(json.dumps(value, ensure_ascii=True, indent=1) + "\n")


def switched(templates, tokens):
    """Every template with more conversations and tools, and with each switch that it asks for."""
    for name, source in templates.items():
        for what, messages in {**CONVERSATIONS, **MORE_CONVERSATIONS}.items():
            for variables in [{}] + [s for s in SWITCHES if any(key in source for key in s)]:
                for tools in (None, MORE_TOOLS):
                    result = outcome(
                        source,
                        messages=messages,
                        tools=tools,
                        documents=None,
                        add_generation_prompt=True,
                        **{**tokens(name), **variables},
                    )
                    case = {"template": name, "conversation": what, "tools": tools is not None, "generate": True}
                    yield {**case, "variables": variables, **result}


def folders(paths):
    """The templates of folders with a tokenizer_config.json, and their special tokens; and of single files."""
    templates, tokens = {}, {}
    for path in map(pathlib.Path, paths):
        if path.suffix == ".jinja":
            templates[path.stem] = path.read_text(encoding="utf-8")
            tokens[path.stem] = {"bos_token": "<s>", "eos_token": "</s>"}
            continue
        config = json.loads((path / "tokenizer_config.json").read_text(encoding="utf-8"))
        template = config.get("chat_template")
        if isinstance(template, list):
            template = next((t["template"] for t in template if t["name"] == "default"), None)
        if template is None:
            continue
        name = path.parent.name if path.name == "models" else path.name
        templates[name] = template
        texts = {k: config.get(k) for k in ("bos", "eos", "unk", "sep", "pad", "cls", "mask") for k in [k + "_token"]}
        tokens[name] = {k: v["content"] if isinstance(v, dict) else v for k, v in texts.items() if v is not None}
    of_each = golden(templates, tokens.__getitem__)
    more = {**of_each, "conversations": {**CONVERSATIONS, **MORE_CONVERSATIONS}, "tools": MORE_TOOLS}
    more["cases"] = list(switched(templates, tokens.__getitem__))
    return [{**part, "tokens": tokens} for part in (of_each, more)]


def main():
    if sys.argv[1:]:
        print(json.dumps(folders(sys.argv[1:])))
        return
    two = {"bos_token": "<s>", "eos_token": "</s>"}
    write("templates.golden.json", golden(TEMPLATES, lambda name: two, lambda name: "tool" in name or "date" in name))
    variables = {
        **VARIABLES,
        "messages": CONVERSATIONS["everything"],
        "tools": TOOLS,
        "add_generation_prompt": True,
        "pad_token": "<pad>",
        **two,
    }
    constructs = [{"template": source, **outcome(source, documents=None, **variables)} for source in CONSTRUCTS]
    # What shows an address or a type of Python differs from run to run and is nothing that a prompt has.
    constructs = [c for c in constructs if not re.search(r" at 0x|<class|<Template|<built-in", c.get("text", ""))]
    write("constructs.golden.json", {"now": NOW, "variables": variables, "cases": constructs})


if __name__ == "__main__":
    main()
