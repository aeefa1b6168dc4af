"""Runs the tests of JavaScript clients against the same server."""

import os
import subprocess
from pathlib import Path

import pytest


@pytest.mark.parametrize("script", ["openai.test.mjs", "ai.test.mjs"])
def test_the_javascript_client(smollm2, script):
    folder = os.environ["TESSERA_NODE_FOLDER"]
    script = Path(__file__).with_name(script)
    run = subprocess.run(
        [Path(folder) / "node_modules/.bin/node", "--test", script],
        env=os.environ | {"TESSERA_URL": smollm2.url}, capture_output=True, text=True, timeout=600,
    )
    assert run.returncode == 0, run.stdout + run.stderr
