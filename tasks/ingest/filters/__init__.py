"""Rules that drop documents. A new one is one file here (thresholds and `judge`) and one line in FILTERS.

The order is that of application: cheap ones first. The first reason found is the one that counts.
"""

from tasks.ingest.filters import (
    character_ngrams,
    duplication,
    japanese,
    length,
    python_source,
    sentences,
    word_ngrams,
    words,
)
from tasks.ingest.filters.rule import Filter

FILTERS: dict[str, Filter] = {
    "length": Filter(length.LengthRules, length.judge),
    "japanese": Filter(japanese.JapaneseRules, japanese.judge),
    "words": Filter(words.WordRules, words.judge),
    "sentences": Filter(sentences.SentenceRules, sentences.judge),
    "duplication": Filter(duplication.DuplicationRules, duplication.judge),
    "character_ngrams": Filter(character_ngrams.CharacterNgramRules, character_ngrams.judge),
    "word_ngrams": Filter(word_ngrams.WordNgramRules, word_ngrams.judge),
    "python_source": Filter(python_source.PythonRules, python_source.judge),
}
