"""Two servers behind an unmodified vllm-router, as docs/scaling.md says it."""

import contextlib
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import httpx2 as httpx
import pytest

from server import PATIENCE, serving, signal, until

CHAT = "/v1/chat/completions"
RUNNING, CANCELLED = "tessera_requests_running", "tessera_generations_cancelled_total"


def body(text="Hi", **options):
    messages = [{"role": "user", "content": text}]
    return {"model": "noise", "messages": messages, "max_tokens": 4, "temperature": 0, "ignore_eos": True} | options


@pytest.fixture
def servers(noise):
    with serving(f"noise={noise}") as one, serving(f"noise={noise}") as two:
        yield [one, two]


@contextlib.contextmanager
def routing(servers, policy):
    """The router on a free port, as a client."""
    with socket.socket() as probe, socket.socket() as other:
        probe.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        port, metrics = probe.getsockname()[1], other.getsockname()[1]
    command = [Path(sys.executable).parent / "vllm-router", "--worker-urls", *[server.url for server in servers]]
    command += ["--policy", policy, "--host", "127.0.0.1", "--port", str(port), "--prometheus-port", str(metrics)]
    log = tempfile.NamedTemporaryFile(prefix="router-", suffix=".log")
    process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE)

    def ready():
        assert process.poll() is None, Path(log.name).read_text()
        with contextlib.suppress(httpx.TransportError):
            return client.get("/health").status_code == 200 and client.post(CHAT, json=body()).status_code == 200

    try:
        until("the router is ready", ready)
        yield client
    finally:
        process.kill()
        process.wait()
        client.close()
        log.close()


def answered(server):
    return server.metric("tessera_generations_finished_total", "noise")


def spread(servers, client, requests):
    """How many of the requests each server answered."""
    # A generation is counted a moment after its answer: those of the start may not be there yet.
    before = None
    while before != (before := [answered(server) for server in servers]):
        time.sleep(0.2)
    for request in requests:
        reply = client.post(CHAT, json=request)
        assert reply.status_code == 200, reply.text
    until("all are counted", lambda: sum(map(answered, servers)) >= sum(before) + len(requests))
    return [int(answered(server) - was) for server, was in zip(servers, before)]


def test_requests_are_spread_evenly_and_answers_are_the_servers_own(servers):
    with routing(servers, "round_robin") as client:
        assert spread(servers, client, [body(f"Question {i}") for i in range(12)]) == [6, 6]
        assert client.get("/v1/models").json()["data"][0]["id"] == "noise"
        direct = [server.http.post(CHAT, json=body("Same?")).json() for server in servers]
        routed = client.post(CHAT, json=body("Same?")).json()
        for answer in (*direct, routed):
            answer.pop("id"), answer.pop("created"), answer["usage"].pop("prompt_tokens_details")
        assert routed == direct[0] == direct[1]
        refused = client.post(CHAT, json=body(temperature=9))
        assert refused.status_code == 400 and refused.json()["error"]["param"] == "temperature"


def test_a_prompt_that_comes_again_goes_where_it_was(servers):
    with routing(servers, "cache_aware") as client:
        long = "The same long beginning of a conversation. " * 20
        counts = spread(servers, client, [body(long + str(i)) for i in range(10)])
        assert sorted(counts) == [0, 10], counts
        reply = client.post(CHAT, json=body(long + "0")).json()
        usage = reply["usage"]
        assert usage["prompt_tokens_details"]["cached_tokens"] > 0.9 * usage["prompt_tokens"]


def test_streams_pass_unchanged(servers):
    request = body(stream=True, max_tokens=40, stream_options={"include_usage": True}, logprobs=True, top_logprobs=3)

    def stream(client):
        with client.stream("POST", CHAT, json=request) as reply:
            assert reply.status_code == 200 and reply.headers["content-type"].startswith("text/event-stream")
            data = reply.read()
        ids = {line.split(b'"')[3] for line in data.split(b"\n") if line.startswith(b'data: {"id":')}
        assert len(ids) == 1 and data.endswith(b"data: [DONE]\n\n")
        lines = [line for line in data.split(b"\n") if line]
        return [line.replace(ids.copy().pop(), b"ID") for line in lines]

    def without_time(lines):
        return [re.sub(rb'"created":\d+|"cached_tokens":\d+', b"", line) for line in lines]

    with routing(servers, "round_robin") as client:
        routed, direct = stream(client), stream(servers[0].http)
        assert without_time(routed) == without_time(direct) and len(direct) > 40


def test_a_client_that_hangs_up_is_passed_on(servers):
    with routing(servers, "round_robin") as client:
        for _ in range(2):
            request = body(stream=True, max_tokens=8000)
            with client.stream("POST", CHAT, json=request) as reply:
                chunks = reply.iter_raw()
                next(chunks)
                until("it runs", lambda: sum(s.metric(RUNNING, "noise") for s in servers) == 1)
        until("none runs", lambda: sum(s.metric(RUNNING, "noise") for s in servers) == 0)
        until("both were cancelled", lambda: sum(s.metric(CANCELLED, "noise") for s in servers) == 2)


def test_when_one_server_is_killed_every_request_is_still_answered(servers):
    with routing(servers, "round_robin") as client:
        codes = []
        # Two clients that go on all the while.
        stop = threading.Event()

        def go_on():
            while not stop.is_set():
                codes.append(client.post(CHAT, json=body(max_tokens=1)).status_code)

        threads = [threading.Thread(target=go_on) for _ in range(2)]
        for thread in threads:
            thread.start()
        until("both answer", lambda: len(codes) > 10)
        servers[0].signal(signal.SIGKILL)
        servers[0].process.wait()
        after = len(codes)
        until("the other one answers", lambda: len(codes) > after + 30)
        stop.set()
        for thread in threads:
            thread.join()
        # A request whose answer had begun when its server was killed cannot be repeated.
        failed = [code for code in codes if code != 200]
        assert len(failed) <= 2 and set(codes[after + 2 :]) == {200}, codes
        for i in range(10):
            assert client.post(CHAT, json=body(f"After {i}")).status_code == 200


def test_a_server_that_ends_politely_loses_nothing(servers):
    with routing(servers, "round_robin") as client:
        with client.stream("POST", CHAT, json=body(stream=True, max_tokens=4000)) as reply:
            chunks = reply.iter_raw()
            first = next(chunks)
            # The first chunk names the role: it is sent before the engine has taken the request up.
            running = until("it runs", lambda: next((s for s in servers if s.metric(RUNNING, "noise") == 1), None))
            running.signal(signal.SIGTERM)
            for i in range(6):
                assert client.post(CHAT, json=body(f"Meanwhile {i}")).status_code == 200
            assert (first + b"".join(chunks)).endswith(b"data: [DONE]\n\n")
        assert running.process.wait(PATIENCE) == 0
        for i in range(4):
            assert client.post(CHAT, json=body(f"After {i}")).status_code == 200
