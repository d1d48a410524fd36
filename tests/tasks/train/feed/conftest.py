import pytest

from tasks.tokens import TextTokenizer
from tests.tasks.train.feed.sample import CHATS, DOCUMENTS
from tests.tasks.training_data import make_pack


@pytest.fixture(scope="session")
def tokenizer(tokenizer_artifact):
    return TextTokenizer(tokenizer_artifact.local_dir())


@pytest.fixture(scope="session")
def packs(tmp_path_factory, tokenizer_artifact):
    store = tmp_path_factory.mktemp("packs")
    return {
        "text": make_pack(store, tokenizer_artifact, DOCUMENTS, total_tokens=2000),
        "chat": make_pack(store, tokenizer_artifact, CHATS, kind="chat"),
    }
