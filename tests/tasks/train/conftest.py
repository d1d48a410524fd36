import asyncio
import types

import gcsfs.retry
import jax
import numpy as np
import pytest

from tasks.artifact import Artifact
from tasks.train import remote
from tests.tasks.train import nano
from tests.tasks.training_data import chat, document, make_pack, make_tokenizer, turns

WORDS = "one two three quick brown fox jumps over lazy dogs 日本語 を 話します".split()  # noqa: SIM905


@pytest.fixture(scope="session", autouse=True)
def compile_cache(tmp_path_factory):
    """Trainers of one session compile each program once."""
    path = str(tmp_path_factory.getbasetemp().parent / "jax-cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_COMPILATION_CACHE_DIR", path)
        patch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
        jax.config.update("jax_compilation_cache_dir", path)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        yield
        jax.config.update("jax_compilation_cache_dir", None)


@pytest.fixture(scope="module", autouse=True)
def nano_is_known():
    """`gemma2/nano` is a size here and nowhere else."""
    with nano.known():
        yield


@pytest.fixture
def hurried(monkeypatch):
    """The waits for a store that does not answer, ours and gcsfs's, a hundredth of what they are."""
    monkeypatch.setattr(remote, "FIRST_WAIT_S", 0.01)
    hasty = types.SimpleNamespace(sleep=lambda seconds: asyncio.sleep(seconds / 100))
    monkeypatch.setattr(gcsfs.retry, "asyncio", hasty)


@pytest.fixture(scope="session")
def tokenizer_artifact(tmp_path_factory) -> Artifact:
    """A tokenizer of 400 pieces."""
    return make_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="session")
def text_pack(tmp_path_factory, tokenizer_artifact) -> Artifact:
    """Two sources of short documents."""
    rng = np.random.default_rng(3)
    rows = {
        name: [document(" ".join(rng.choice(WORDS, rng.integers(2, 40))), source=name) for _ in range(count)]
        for name, count in (("ja", 40), ("en", 25))
    }
    return make_pack(tmp_path_factory.mktemp("text"), tokenizer_artifact, rows)


@pytest.fixture(scope="session")
def chat_pack(tmp_path_factory, tokenizer_artifact) -> Artifact:
    """One source of two-turn conversations."""
    rng = np.random.default_rng(4)
    rows = [chat(turns(*(" ".join(rng.choice(WORDS, rng.integers(1, 5))) for _ in range(2)))) for _ in range(60)]
    return make_pack(tmp_path_factory.mktemp("chat"), tokenizer_artifact, {"talk": rows}, kind="chat")
