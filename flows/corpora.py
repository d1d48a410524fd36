"""The corpora of the tiny presets: which pages, how they are cleaned, what must not be in them, and their mixture."""

from flows.configs import CorpusConfig
from flows.sources import EN_PAGES, JA_PAGES, PYTHON_PAGES
from flows.teachers import GEMMA
from tasks.decontaminate.config import DecontaminateConfig
from tasks.ingest.config import CleanConfig, DedupConfig
from tasks.pack.config import SourceShare

# Documentation is terser than the web the published rules were made for: shorter documents, many Latin letters, long
# lists. Swallow v2 itself dropped the longest-sentence and n-gram rules. The other thresholds are Swallow v1's.
_PROSE = "resiliparse"  # leaves lists and tables out, of which the small teachers make no question that they can answer
_JA_CLEAN = CleanConfig(language="ja", extractor=_PROSE).with_changes(
    {
        "edits.foreign_lines.min_words": 6,  # pages that are half translated
        "edits.footer": None,  # manuals end in text; the keywords are those of web sites
        "filters.length.min_chars": 100,
        "filters.japanese.min_japanese_letters": 80,
        "filters.japanese.min_japanese_fraction": 0.4,
        "filters.sentences.min_mean_chars": 10,
        "filters.sentences.max_longest_chars": 0,
        "filters.character_ngrams": None,
    }
)
_EN_CLEAN = CleanConfig(language="en", extractor=_PROSE).with_changes({"filters.words.min_words": 30})


def _dedup(heldout_fraction: float) -> DedupConfig:
    """Half of all pairs with Jaccard 0.71 share a bucket; with the published 40 x 20 it is 0.82."""
    return DedupConfig(bands=20, rows=10, heldout_fraction=heldout_fraction)


# Manuals repeat their sentences: a phrase of more than 10 documents is no sign of a benchmark (GPT-3's own limit).
# Whole held-out documents (bits_per_byte) are guarded by dedup.max_heldout_overlap.
NO_ITEMS = DecontaminateConfig(benchmarks=("continuation",), max_documents=10)
HELDOUT = ("ingest/tiny:ja", "ingest/tiny:en")

TINY_CORPORA: dict[str, CorpusConfig] = {
    "ja": CorpusConfig(mirror=JA_PAGES, clean=_JA_CLEAN, dedup=_dedup(0.04), decontaminate=NO_ITEMS),
    "en": CorpusConfig(mirror=EN_PAGES, clean=_EN_CLEAN, dedup=_dedup(0.03), decontaminate=NO_ITEMS),
    "python": CorpusConfig(
        mirror=PYTHON_PAGES, clean=CleanConfig(language="python"), dedup=_dedup(0.02), decontaminate=NO_ITEMS
    ),
}

# What the continuation learns from, with what the teachers wrote.
CPT_DOCUMENTS = (
    "ingest/tiny:ja",
    "ingest/tiny:en",
    "ingest/tiny:python",
    "synth/tiny:qa-en",
    "synth/tiny:code",
    *(("synth/tiny:qa-ja",) if GEMMA else ()),
)
CPT_SOURCES = (
    SourceShare(name="ja", language="ja", input=0, weight=0.70, max_epochs=3),
    SourceShare(name="en", language="en", input=1, weight=0.22, max_epochs=2),
    SourceShare(name="python", language="python", input=2, weight=0.05, max_epochs=1),
    SourceShare(name="synth-qa-en", language="en", input=3, weight=0.01, max_epochs=4),
    SourceShare(name="synth-code", language="python", input=4, weight=0.01, max_epochs=4),
    *((SourceShare(name="synth-qa-ja", language="ja", input=5, weight=0.01, max_epochs=4),) if GEMMA else ()),
)
