"""Python's frameworks against the same server, each in a process of its own; what they do is in frameworks.py."""

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("frameworks.py")
ROUTES = ["/v1/chat/completions", "/v1/responses", "/v1/completions", "/v1/embeddings"]


def run(server, python, name, folder):
    """Runs one, whose requests must all be answered; it reaches nothing but this machine."""
    nowhere = "http://127.0.0.1:9"
    env = {
        "HOME": str(folder), "PATH": os.environ["PATH"], "HTTP_PROXY": nowhere, "HTTPS_PROXY": nowhere,
        "NO_PROXY": "127.0.0.1", "LITELLM_LOCAL_MODEL_COST_MAP": "True", "PYTHONDONTWRITEBYTECODE": "1",
    }
    before = [server.statuses(route) for route in ROUTES]
    command = [Path(python) / "bin/python", SCRIPT, name, f"{server.url}/v1", "smollm2"]
    done = subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, f"{name}: {done.stdout}\n{done.stderr}"
    after = [server.statuses(route) for route in ROUTES]
    new = {s for was, now in zip(before, after) for s in now if now[s] > was.get(s, 0)}
    assert new == {"200"}, f"{name}: statuses {new}\n{server.logged()}"


@pytest.mark.parametrize("name", ["litellm", "langchain", "pydantic_ai", "autogen", "instructor"])
def test_framework(smollm2, tmp_path, name):
    run(smollm2, os.environ["TESSERA_FRAMEWORKS"], name, tmp_path)


@pytest.mark.heavy
def test_llama_index(smollm2, tmp_path):
    run(smollm2, os.environ["TESSERA_LLAMA_INDEX"], "llama_index", tmp_path)
