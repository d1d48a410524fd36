"""Stores for tests: a directory, memory, and a bucket on the loopback interface."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.tasks.fake_gcs import Bucket, serve

settings.register_profile("nestling", deadline=None)  # a loaded machine is no failure
settings.load_profile("nestling")


@pytest.fixture
def store(tmp_path: Path) -> str:
    """An empty store on the local disk."""
    return str(tmp_path / "store")


@pytest.fixture(scope="session")
def gcs() -> Iterator[Bucket]:
    """A bucket server for the session; gcsfs finds it by the environment."""
    with serve() as (host, bucket), pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", host)
        yield bucket


@pytest.fixture(params=["local", "memory", "gs"])
def any_store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty store of each kind; scratch and downloads stay under the test's directory."""
    if request.param == "local":
        return str(tmp_path / "store")
    monkeypatch.setenv("NESTLING_SCRATCH", str(tmp_path / "scratch"))
    if request.param == "memory":
        return f"memory://{uuid.uuid4().hex}/store"
    request.getfixturevalue("gcs")
    return f"gs://bucket-{uuid.uuid4().hex[:12]}/store"
