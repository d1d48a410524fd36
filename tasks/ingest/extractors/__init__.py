"""How the text of a page is found in its HTML. Another engine is one file here and one line in EXTRACTORS."""

from tasks.ingest.extractors import all_text, main_text, trafilatura_text
from tasks.ingest.extractors.engine import Engine

EXTRACTORS: dict[str, Engine] = {
    "resiliparse": main_text.ENGINE,
    "resiliparse-all": all_text.ENGINE,
    "trafilatura": trafilatura_text.ENGINE,
}
