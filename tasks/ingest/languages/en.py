"""English."""

from tasks.ingest.edits.footer import FooterRules
from tasks.ingest.edits.pii import PiiRules
from tasks.ingest.edits.pii_patterns import EVERYWHERE, SECRETS, UNITED_STATES
from tasks.ingest.edits.repair import RepairRules
from tasks.ingest.filters.garbled import GarbledRules
from tasks.ingest.filters.presets import RULES
from tasks.ingest.filters.toxicity import ToxicityRules
from tasks.ingest.languages.pack import PAGES, LanguagePack, tidy

PACK = LanguagePack(
    code="en",
    name="English",
    content_types=PAGES,
    label="en",
    normalise=tidy,
    filters={**RULES["gopher-en"], "garbled": GarbledRules(), "toxicity": ToxicityRules(lists=("ldnoobw-en",))},
    edits={
        "repair": RepairRules(half_width=False),
        "footer": FooterRules(keywords="footer-en"),
        "pii": PiiRules(patterns=(*EVERYWHERE, *SECRETS, *UNITED_STATES)),
    },
)
