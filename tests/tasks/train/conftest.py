import pytest

from tasks.artifact import Artifact
from tests.tasks.training_data import make_tokenizer


@pytest.fixture(scope="session")
def tokenizer_artifact(tmp_path_factory) -> Artifact:
    """A tokenizer of 400 pieces."""
    return make_tokenizer(tmp_path_factory.mktemp("tokenizer"))
