"""Every number of every filter on real documents, against the slow oracle."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from tasks.ingest.compiled import Load
from tasks.ingest.filters import FILTERS, ngrams
from tasks.ingest.filters.verdicts import columns_of, judge
from tasks.ingest.texts import Texts
from tests.tasks.ingest.filters.oracle import ORACLE

SHARED = Path(__file__).resolve().parents[5] / "shared" / "data"
RULES_OF_TEXT = (
    "length",
    "japanese",
    "words",
    "sentences",
    "duplication",
    "lines",
    "c4",
    "formulas",
    "character_ngrams",
    "word_ngrams",
)
MOST_CHARS = 30_000  # the oracle takes a second for a megabyte


def documents(folder: str, each: int) -> list[str]:
    """The first documents of each file, without the longest."""
    found: list[str] = []
    for path in sorted((SHARED / folder).glob("*.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            texts = [json.loads(line)["text"] for _, line in zip(range(4 * each), lines, strict=False)]
        found += [text for text in texts if len(text) < MOST_CHARS][:each]
    return found


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason=f"{SHARED} is not here")
@pytest.mark.parametrize(
    ("name", "compiled"),
    [
        *[(name, False) for name in RULES_OF_TEXT],
        ("character_ngrams", True),
    ],
)
def test_real_documents_have_the_numbers_of_the_oracle(name, compiled, monkeypatch):
    if compiled:
        pytest.importorskip("numba", reason="numba is not installed")
    monkeypatch.setattr(ngrams, "_load", Load(-1 if compiled else 1 << 62))
    rules = FILTERS[name].rules(**{"max_sentences": 0.3, "max_blocks": 0.3} if name == "duplication" else {})
    strings = documents("corpus-ja", 20) + documents("corpus-en", 20)
    assert len(strings) > 300
    found = judge(Texts(strings), {name: rules}, everything=True)
    expected = [ORACLE[name](text, rules) for text in strings]
    for column in columns_of({name: rules}):
        numbers = np.array([numbers[column.removeprefix(f"{name}.")] for numbers, _ in expected], float)
        np.testing.assert_array_equal(found.columns[column], numbers, err_msg=column)
    assert found.reasons == [next((r for r, holds in reasons if holds), None) for _, reasons in expected]
