"""English."""

from tasks.ingest.filters.duplication import DuplicationRules
from tasks.ingest.filters.length import LengthRules
from tasks.ingest.filters.word_ngrams import WordNgramRules
from tasks.ingest.filters.words import WordRules
from tasks.ingest.languages.pack import LanguagePack, tidy

PACK = LanguagePack(
    code="en",
    name="English",
    content_types=("text/html", "application/xhtml+xml", "text/plain"),
    label="en",
    normalise=tidy,
    filters={  # Gopher quality and repetition rules
        "length": LengthRules(min_chars=0),
        "words": WordRules(),
        "duplication": DuplicationRules(max_blocks=0.30, max_block_chars=0.20),
        "word_ngrams": WordNgramRules(),
    },
)
