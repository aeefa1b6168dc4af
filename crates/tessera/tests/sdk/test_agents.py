"""Coding agents as people install them: one question each, to its end.

Their prompts are longer than SmolLM2's context, so they talk to a model of random weights. What it says is noise;
what counts is that every request is answered without an error and that the agent shows the text."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from server import ending_noise, serving

NODE = Path(os.environ["TESSERA_NODE_FOLDER"]) / "node_modules"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    model = ending_noise(tmp_path_factory.mktemp("model") / "noise", context=65536)
    with serving(f"noise={model}", threads=2) as server:
        yield server


class Agent:
    """A program with a home of its own, asked in an empty folder, that reaches nothing but this machine."""

    def __init__(self, server, folder):
        self.server, self.home, self.work = server, folder / "home", folder / "work"
        self.home.mkdir(), self.work.mkdir()

    def asked(self, route, *command, **env):
        """Its output, once it has ended well and each of its requests to the route was answered."""
        nowhere = "http://127.0.0.1:9"
        env = {
            "HOME": str(self.home), "PATH": f"{NODE}/node/bin:{os.environ['PATH']}", "NO_PROXY": "127.0.0.1",
            "HTTP_PROXY": nowhere, "HTTPS_PROXY": nowhere, "TERM": "dumb", "NO_COLOR": "1",
        } | env
        before = self.server.statuses(route)
        try:
            run = subprocess.run(
                list(map(str, command)), cwd=self.work, env=env, stdin=subprocess.DEVNULL, capture_output=True,
                text=True, timeout=240,
            )
        except subprocess.TimeoutExpired as late:
            pytest.fail(f"{command[0]} did not end: {late.stdout}\n{late.stderr}\n{self.server.logged()}")
        told = f"{run.stdout}\n{run.stderr}\n{self.server.logged()}"
        assert run.returncode == 0, told
        counts = {s: n - before.get(s, 0) for s, n in self.server.statuses(route).items() if n > before.get(s, 0)}
        assert set(counts) == {"200"}, (counts, told)
        return run.stdout


@pytest.fixture
def agent(server, tmp_path):
    return Agent(server, tmp_path)


def events(output):
    return [json.loads(line) for line in output.splitlines() if line.startswith("{")]


def test_codex(agent):
    (agent.home / "config.toml").write_text(
        f"""model = "noise"
model_provider = "tessera"
[model_providers.tessera]
name = "tessera"
base_url = "{agent.server.url}/v1"
wire_api = "responses"
"""
    )
    command = [NODE / ".bin/codex", "exec", "--json", "--ephemeral", "--skip-git-repo-check", "Say hello."]
    said = events(agent.asked("/v1/responses", *command, CODEX_HOME=str(agent.home)))
    texts = [e["item"]["text"] for e in said if e.get("item", {}).get("type") == "agent_message"]
    assert any(texts), said
    usage = said[-1]["usage"]
    assert said[-1]["type"] == "turn.completed" and usage["input_tokens"] > 10_000 and usage["output_tokens"] > 0


def test_opencode(agent):
    provider = {
        "npm": "@ai-sdk/openai-compatible", "name": "tessera",
        "options": {"baseURL": f"{agent.server.url}/v1", "apiKey": "none"},
        "models": {"noise": {"name": "noise", "limit": {"context": 65536, "output": 100}}},
    }
    config = {
        "autoupdate": False, "share": "disabled", "model": "tessera/noise", "small_model": "tessera/noise",
        "provider": {"tessera": provider},
    }
    (agent.work / "opencode.json").write_text(json.dumps(config))
    quiet = {"OPENCODE_DISABLE_MODELS_FETCH": "1", "OPENCODE_DISABLE_AUTOUPDATE": "1"}
    command = [NODE / ".bin/opencode", "run", "--format", "json", "Say hello."]
    said = events(agent.asked("/v1/chat/completions", *command, **quiet))
    assert any(e["part"]["text"] for e in said if e["type"] == "text"), said
    assert said[-1]["type"] == "step_finish" and said[-1]["part"]["reason"] in ("stop", "length"), said[-1]


def test_continue(agent):
    config = agent.home / "config.yaml"
    config.write_text(
        f"""name: tessera
version: 1.0.0
schema: v1
models:
  - name: noise
    provider: openai
    model: noise
    apiBase: {agent.server.url}/v1
    apiKey: none
    roles: [chat]
    defaultCompletionOptions: {{maxTokens: 100}}
"""
    )
    # A question under way has no end for it but a text without calls, which noise is.
    command = [NODE / ".bin/cn", "-p", "--config", config, "Say hello."]
    said = agent.asked("/v1/chat/completions", *command, CONTINUE_TELEMETRY_ENABLED="0")
    assert said.strip(), agent.server.logged()


@pytest.mark.heavy
def test_aider(agent):
    python = Path(os.environ["TESSERA_AIDER"])
    command = [
        python / "bin/aider", "--model", "openai/noise", "--message", "Say hello.", "--no-git", "--yes-always",
        "--no-check-update", "--analytics-disable", "--no-show-model-warnings", "--no-pretty", "--edit-format", "ask",
    ]
    keys = {"OPENAI_API_BASE": f"{agent.server.url}/v1", "OPENAI_API_KEY": "none"}
    (agent.work / ".aider.model.settings.yml").write_text(
        "- name: openai/noise\n  use_temperature: 1.0\n"
    )
    said = agent.asked("/v1/chat/completions", *command, **keys)
    assert "Tokens:" in said and " received" in said, said
