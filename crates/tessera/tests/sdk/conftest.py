"""Servers that tests share. `scripts/test-clients` sets TESSERA_BIN and TESSERA_TEST_MODEL."""

import os

import pytest

from server import noise_model, serving


def pytest_configure(config):
    config.addinivalue_line("markers", "heavy: for `scripts/test-clients heavy`, which installs what they need")


@pytest.fixture(scope="session")
def smollm2():
    """SmolLM2-135M-Instruct, served as `smollm2`."""
    with serving("smollm2=" + os.environ["TESSERA_TEST_MODEL"], "--context", 4096) as server:
        yield server


@pytest.fixture(scope="session")
def client(smollm2):
    return smollm2.client()


@pytest.fixture
def noise(tmp_path):
    """A folder with the model of random weights."""
    return noise_model(tmp_path / "noise", context=8192)
