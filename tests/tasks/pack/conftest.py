import pytest

from tasks.pack import tokenizer
from tests.tasks.training_data import load_real_texts


@pytest.fixture(scope="session")
def real_texts() -> list[str]:
    return load_real_texts()


@pytest.fixture(scope="session")
def real_model(real_texts) -> bytes:
    """A SentencePiece model of 4,096 pieces learnt from the real texts."""
    return tokenizer.learn(tokenizer.lines_of(real_texts), vocab_size=4096, character_coverage=0.9995)


@pytest.fixture(scope="session")
def real_dir(real_model, tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer")
    for name, data in tokenizer.files_of(real_model).items():
        (path / name).write_bytes(data)
    return path
