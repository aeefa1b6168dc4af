"""What people build with Python's frameworks, each in a function: `frameworks.py NAME URL MODEL`.

Runs in an environment of its own: the frameworks want other versions of OpenAI's client than the tests."""

import asyncio
import sys
from typing import Literal

from pydantic import BaseModel

NAME, URL, MODEL = sys.argv[1:]
KEY = "none"


class Answer(BaseModel):
    ripe: bool


def clock(zone: Literal["utc", "local"]) -> str:
    """The time"""
    return "12:30"


def litellm():
    import litellm

    to = {"model": f"openai/{MODEL}", "api_base": URL, "api_key": KEY}
    asked = to | {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 8, "temperature": 0}
    whole = litellm.completion(**asked).choices[0].message.content
    streamed = "".join(c.choices[0].delta.content or "" for c in litellm.completion(stream=True, **asked))
    assert whole and whole == streamed
    answer = litellm.responses(input="Hi", max_output_tokens=16, **to)
    assert answer.output[0].content[0].text


def langchain():
    from langchain_core.messages import HumanMessage, ToolMessage
    from langchain_core.tools import tool
    from langchain_openai import ChatOpenAI, OpenAIEmbeddings

    to = {"model": MODEL, "base_url": URL, "api_key": KEY}
    chat = ChatOpenAI(**to, max_tokens=60, temperature=0)
    whole = chat.invoke("Hi").content
    assert whole and whole == "".join(chunk.content for chunk in chat.stream("Hi"))
    for method in ("json_schema", "function_calling"):
        assert isinstance(chat.with_structured_output(Answer, method=method).invoke("Is it ripe?"), Answer)
    tools = ChatOpenAI(**to, max_tokens=400, temperature=0)
    tools = tools.bind_tools([tool(clock)], tool_choice="required", parallel_tool_calls=False)
    question = HumanMessage("What time is it?")
    called = tools.invoke([question])
    assert [call["name"] for call in called.tool_calls] == ["clock"], called
    assert chat.invoke([question, called, ToolMessage("12:30", tool_call_id=called.tool_calls[0]["id"])])
    assert ChatOpenAI(**to, max_tokens=20, use_responses_api=True).invoke("Hi").content
    assert len(OpenAIEmbeddings(**to, check_embedding_ctx_length=False).embed_query("A cat")) > 100


def pydantic_ai():
    from pydantic_ai import Agent, NativeOutput
    from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
    from pydantic_ai.providers.openai import OpenAIProvider

    async def streamed(agent):
        async with agent.run_stream("Hi") as run:
            return [text async for text in run.stream_text()][-1]

    provider = OpenAIProvider(base_url=URL, api_key=KEY)
    for model in (OpenAIChatModel(MODEL, provider=provider), OpenAIResponsesModel(MODEL, provider=provider)):
        # Instructions beside a system prompt are two system messages.
        settings = {"max_tokens": 200}
        agent = Agent(model, instructions="Be brief.", system_prompt="Be kind.", model_settings=settings)
        assert agent.run_sync("Hi").output and asyncio.run(streamed(agent))
        for kind in (Answer, NativeOutput(Answer)):
            found = Agent(model, output_type=kind, model_settings=settings).run_sync("Is it ripe?").output
            assert isinstance(found, Answer)


def autogen():
    from autogen_agentchat.agents import AssistantAgent
    from autogen_core.models import UserMessage
    from autogen_ext.models.openai import OpenAIChatCompletionClient

    able = dict.fromkeys(("function_calling", "json_output", "structured_output"), True)
    info = able | {"vision": False, "family": "unknown"}

    async def go():
        client = OpenAIChatCompletionClient(model=MODEL, base_url=URL, api_key=KEY, model_info=info, max_tokens=30)
        # It names the speaker of each message.
        agent = AssistantAgent("helper", client, tools=[clock], system_message="Be brief.")
        assert (await agent.run(task="Hi")).messages[-1].content
        parts = [part async for part in client.create_stream([UserMessage(content="Hi", source="user")])]
        assert parts[-1].content == "".join(parts[:-1])
        await client.close()

    asyncio.run(go())


def instructor():
    import instructor
    from openai import OpenAI

    asked = [{"role": "user", "content": "Is it ripe?"}]
    for mode in (instructor.Mode.TOOLS, instructor.Mode.TOOLS_STRICT, instructor.Mode.JSON_SCHEMA):
        client = instructor.from_openai(OpenAI(base_url=URL, api_key=KEY), mode=mode)
        options = {"model": MODEL, "messages": asked, "max_tokens": 100, "max_retries": 0}
        assert isinstance(client.chat.completions.create(response_model=Answer, **options), Answer)


def llama_index():
    from llama_index.core.llms import ChatMessage
    from llama_index.core.tools import FunctionTool
    from llama_index.llms.openai_like import OpenAILike

    to = {"model": MODEL, "api_base": URL, "api_key": KEY, "context_window": 4096, "temperature": 0}
    chat = OpenAILike(**to, is_chat_model=True, is_function_calling_model=True, max_tokens=400)
    short = OpenAILike(**to, is_chat_model=True, max_tokens=12)
    whole = short.chat([ChatMessage("Hi")]).message.content
    assert whole and whole == "".join(part.delta or "" for part in short.stream_chat([ChatMessage("Hi")]))
    assert OpenAILike(**to, max_tokens=12).complete("The sky is").text
    tools = [FunctionTool.from_defaults(clock)]
    called = chat.chat_with_tools(tools, user_msg="What time is it?", tool_required=True)
    assert [call.tool_name for call in chat.get_tool_calls_from_response(called)] == ["clock"]


globals()[NAME]()
