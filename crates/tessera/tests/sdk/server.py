"""The real program on a free port, and what every test needs of it."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import httpx2 as httpx
from openai import OpenAI

PATIENCE = 120.0
"""Seconds that anything may take before a test fails."""

REPOSITORY = Path(__file__).resolve().parents[4]
GOLDEN = REPOSITORY / "crates/tessera-weights/tests/data/golden/llama-tied-bf16/q4f32_1"


def until(what, holds, patience=PATIENCE):
    """Waits until `holds()` is true, and returns what it said."""
    end = time.monotonic() + patience
    while not (said := holds()):
        assert time.monotonic() < end, f"{what}: not within {patience} s"
        time.sleep(0.02)
    return said


def noise_model(folder, context=2048):
    """A model of random weights with a byte for each token: its text is noise, but it is fast."""
    shutil.copytree(GOLDEN, folder)
    path = folder / "mlc-chat-config.json"
    config = json.loads(path.read_text())
    config["context_window_size"] = config["model_config"]["context_window_size"] = context
    path.write_text(json.dumps(config))
    return folder


def ending_noise(folder, context):
    """The same with answers that end after some hundred tokens: the penalties push it out of its rut. Takes messages
    in any order."""
    noise_model(folder, context)
    path = folder / "mlc-chat-config.json"
    config = json.loads(path.read_text()) | {
        "temperature": 1.0, "top_p": 1.0, "frequency_penalty": 2.0, "presence_penalty": 2.0,
    }
    path.write_text(json.dumps(config))
    path = folder / "tokenizer_config.json"
    template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    template += "{% if add_generation_prompt %}<assistant>{% endif %}"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": template}))
    return folder


class Server:
    """`tessera serve` as a process."""

    def __init__(self, *args, env=None, threads=1):
        self.log = tempfile.NamedTemporaryFile(prefix="tessera-", suffix=".log")
        environment = {k: v for k, v in os.environ.items() if k != "TESSERA_API_KEY"} | (env or {})
        command = [os.environ["TESSERA_BIN"], "serve", "--port", "0", "--threads", str(threads)]
        self.process = subprocess.Popen(
            [*command, *map(str, args)], stdout=subprocess.PIPE, stderr=self.log, text=True, env=environment
        )
        line = self.process.stdout.readline()
        assert line.startswith("http://"), self.logged()
        self.url = line.split(" ")[0]
        self.http = httpx.Client(base_url=self.url, timeout=PATIENCE)
        try:
            until("it is ready", self.ready)
        except BaseException:
            self.process.kill()
            raise

    def ready(self):
        assert self.process.poll() is None, self.logged()
        return self.http.get("/ready").status_code == 200

    def logged(self):
        return Path(self.log.name).read_text()

    def metric(self, name, model=None):
        """A number of `/metrics`."""
        label = f'{{model="{model}"}}' if model else ""
        lines = self.http.get("/metrics").text.splitlines()
        found = [line.rsplit(" ", 1)[1] for line in lines if line.rsplit(" ", 1)[0] == name + label]
        assert found, f"{name}{label} is not in the metrics"
        return float(found[0])

    def statuses(self, route):
        """How often a route answered with which status."""
        lines = self.http.get("/metrics").text.splitlines()
        known = [line for line in lines if line.startswith("tessera_http_requests_total{") and f'"{route}"' in line]
        return {re.search(r'status="(\d+)"', line)[1]: float(line.rsplit(" ", 1)[1]) for line in known}

    def until_metric(self, name, model, value):
        until(f"{name} is {value}", lambda: self.metric(name, model) == value)

    def rss(self):
        """Resident memory in bytes."""
        return self.metric("tessera_resident_memory_bytes")

    def client(self, **options):
        """The official client, which takes only answers that fit its types."""
        usual = {"api_key": "none", "max_retries": 0, "timeout": PATIENCE, "_strict_response_validation": True}
        return OpenAI(base_url=self.url + "/v1", **usual | options)

    def signal(self, number):
        self.process.send_signal(number)

    def stop(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.http.close()
        self.log.close()


@contextlib.contextmanager
def serving(*args, **options):
    """A server that ends with the block."""
    server = Server(*args, **options)
    try:
        yield server
    finally:
        server.stop()


__all__ = ["PATIENCE", "Server", "ending_noise", "noise_model", "serving", "signal", "until"]
