"""How the text of a page is found in its HTML. Another engine is one file here and one line in EXTRACTORS."""

from tasks.ingest.extractors import all_text, main_text, trafilatura_text, without_furniture
from tasks.ingest.extractors.engine import Engine

DEFAULT = "without_furniture"  # why: tests/tasks/ingest/test_gold.py
EXTRACTORS: dict[str, Engine] = {
    "without_furniture": without_furniture.ENGINE,
    "resiliparse": main_text.ENGINE,
    "resiliparse_all": all_text.ENGINE,
    "trafilatura": trafilatura_text.ENGINE,
}
