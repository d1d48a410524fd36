"""What is on disk, and the engine that reads it, are what the run was made for, or it does not start."""

import sys

import pytest

from tasks.errors import ConfigError, DataFault
from tasks.tokens import TextTokenizer
from tasks.train.feed.sources import open_sources, require_equal_ids
from tests.tasks.train.feed.sample import DOCUMENTS, open_feed


class Other(TextTokenizer):
    """Agrees with `tokenizers` but for what one test wants."""

    def __init__(self, path, changed):
        super().__init__(path, "fastokens")
        self._truth, self._changed = TextTokenizer(path), changed

    def document(self, text):
        ids = self._truth.document(text)
        if self._changed in text:
            ids[3] += 1
        return ids


def test_an_engine_with_other_ids_is_refused_with_the_first_difference(packs, tokenizer):
    sources = open_feed(packs, tokenizer)[1]
    rare = DOCUMENTS["code"][4]["text"]  # one document of the last source
    with pytest.raises(
        ConfigError, match=r"other ids than tokenizers for source code, document \d of its order: from t"
    ):
        require_equal_ids(sources, Other(tokenizer.path, rare))
    with pytest.raises(ConfigError, match=r"a text that spells every control token: from token 3 on"):
        require_equal_ids(sources, Other(tokenizer.path, "<eos>"))
    require_equal_ids(sources, Other(tokenizer.path, "in no document"))


def test_fastokens_is_refused_where_it_is_not_installed(packs, tokenizer, monkeypatch):
    monkeypatch.setitem(sys.modules, "fastokens", None)
    with pytest.raises(ConfigError, match=r"not installed.*\[fast\]"):
        require_equal_ids(open_feed(packs, tokenizer)[1], TextTokenizer(tokenizer.path, "fastokens"))


def test_fastokens_agrees_on_documents_but_lets_control_tokens_of_this_tokenizer_in(packs, tokenizer):
    """0.3.5 takes a word that is an entry of the vocabulary as a whole, also where no merges lead to it."""
    pytest.importorskip("fastokens", reason="the [fast] extra is not installed")
    fast = TextTokenizer(tokenizer.path, "fastokens")
    for row in (row for rows in DOCUMENTS.values() for row in rows):
        assert fast.document(row["text"]).tolist() == tokenizer.document(row["text"]).tolist()
        assert fast.document(row["text"]).dtype == tokenizer.document(row["text"]).dtype
    with pytest.raises(ConfigError, match="gives other ids than tokenizers for a text that spells every control token"):
        require_equal_ids(open_feed(packs, tokenizer)[1], fast)


@pytest.mark.parametrize("how", ["gone", "truncated"])
def test_a_damaged_file_of_records_is_a_data_fault(packs, tmp_path, how):
    mixture = packs["text"].read_json("mixture.json")
    for source in mixture["sources"]:
        for file in source["files"]:
            copy = tmp_path / file
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes((packs["text"].local_dir() / file).read_bytes())
    open_sources(tmp_path, mixture, 0)
    if how == "gone":
        copy.unlink()
    else:
        copy.write_bytes(copy.read_bytes()[: copy.stat().st_size // 2])
    with pytest.raises(DataFault, match="source code: its files cannot be read"):
        open_sources(tmp_path, mixture, 0)
