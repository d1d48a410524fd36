"""Rules that drop documents. A new one is one file here (thresholds, `measure` and `limits`) and one line in FILTERS.

The order is that of application: cheap ones first. The first reason found is the one that counts.
"""

from tasks.ingest.filters import (
    character_ngrams,
    duplication,
    garbled,
    japanese,
    length,
    ng_words,
    python_source,
    refusals,
    sentences,
    toxicity,
    url,
    word_ngrams,
    words,
)
from tasks.ingest.filters.rule import Filter

FILTERS: dict[str, Filter] = {
    "url": Filter(url.UrlRules, url.measure, url.limits),
    "length": Filter(length.LengthRules, length.measure, length.limits),
    "japanese": Filter(japanese.JapaneseRules, japanese.measure, japanese.limits),
    "garbled": Filter(garbled.GarbledRules, garbled.measure, garbled.limits),
    "words": Filter(words.WordRules, words.measure, words.limits),
    "sentences": Filter(sentences.SentenceRules, sentences.measure, sentences.limits),
    "duplication": Filter(duplication.DuplicationRules, duplication.measure, duplication.limits),
    "ng_words": Filter(ng_words.NgWordRules, ng_words.measure, ng_words.limits),
    "toxicity": Filter(toxicity.ToxicityRules, toxicity.measure, toxicity.limits),
    "refusals": Filter(refusals.RefusalRules, refusals.measure, refusals.limits, expensive=True),
    "character_ngrams": Filter(
        character_ngrams.CharacterNgramRules, character_ngrams.measure, character_ngrams.limits, expensive=True
    ),
    "word_ngrams": Filter(word_ngrams.WordNgramRules, word_ngrams.measure, word_ngrams.limits, expensive=True),
    "python_source": Filter(python_source.PythonRules, python_source.measure, python_source.limits, expensive=True),
}
