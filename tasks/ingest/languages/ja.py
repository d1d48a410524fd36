"""Japanese."""

from tasks.ingest.characters import wide_katakana
from tasks.ingest.edits.footer import FooterRules
from tasks.ingest.edits.pii import PiiRules
from tasks.ingest.edits.pii_patterns import EVERYWHERE, JAPAN, SECRETS
from tasks.ingest.edits.punctuation import PunctuationRules
from tasks.ingest.edits.repair import RepairRules
from tasks.ingest.filters.garbled import GarbledRules
from tasks.ingest.filters.presets import RULES
from tasks.ingest.languages.pack import PAGES, LanguagePack, tidy

# Full-width digits and letters become ASCII, half-width katakana full-width. Punctuation stays as the writer chose it,
# and so do ①, ㈱ and ～, which NFKC would turn into other words.
_WIDTH = {
    code: code - 0xFEE0 for r in (range(0xFF10, 0xFF1A), range(0xFF21, 0xFF3B), range(0xFF41, 0xFF5B)) for code in r
}


def normalise(text: str) -> str:
    """`tidy`, with one width for digits, letters and katakana."""
    return tidy(wide_katakana(text.translate(_WIDTH)))


PACK = LanguagePack(
    code="ja",
    name="Japanese",
    content_types=PAGES,
    label="ja",
    normalise=normalise,
    filters={**RULES["swallow-v1"], "garbled": GarbledRules()},
    edits={
        "repair": RepairRules(),
        "punctuation": PunctuationRules(),
        "footer": FooterRules(keywords="footer-ja"),
        "pii": PiiRules(patterns=(*EVERYWHERE, *SECRETS, *JAPAN)),
    },
)
