"""English."""

from tasks.ingest.filters.presets import RULES
from tasks.ingest.languages.pack import LanguagePack, tidy

PACK = LanguagePack(
    code="en",
    name="English",
    content_types=("text/html", "application/xhtml+xml", "text/plain"),
    label="en",
    normalise=tidy,
    filters=RULES["gopher-en"],
)
