"""Japanese."""

import re
import unicodedata

from tasks.ingest.filters.presets import RULES
from tasks.ingest.languages.pack import LanguagePack, tidy

# Full-width digits and letters become ASCII, half-width katakana full-width. Punctuation stays as the writer chose it,
# and so do ①, ㈱ and ～, which NFKC would turn into other words.
_WIDTH = {
    code: code - 0xFEE0 for r in (range(0xFF10, 0xFF1A), range(0xFF21, 0xFF3B), range(0xFF41, 0xFF5B)) for code in r
}
_HALF_KATAKANA = re.compile("[\uff61-\uff9f]+")


def normalise(text: str) -> str:
    """`tidy`, with one width for digits, letters and katakana."""
    wide = _HALF_KATAKANA.sub(lambda found: unicodedata.normalize("NFKC", found[0]), text.translate(_WIDTH))
    return tidy(wide)


PACK = LanguagePack(
    code="ja",
    name="Japanese",
    content_types=("text/html", "application/xhtml+xml", "text/plain"),
    label="ja",
    normalise=normalise,
    native=re.compile("[\u3041-\u3096\u30a1-\u30fa\u3400-\u9fff]"),
    filters=RULES["swallow-v1"],
)
