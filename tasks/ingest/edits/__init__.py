"""Edits that clean a text without judging it. A new one is one file here (knobs and `edit`) and one line in EDITS.

The order is that of application: repair first, so that the others see right characters.
"""

from tasks.ingest.edits import punctuation
from tasks.ingest.edits.edit import Edit

EDITS: dict[str, Edit] = {
    "punctuation": Edit(punctuation.PunctuationRules, punctuation.edit, punctuation.COLUMNS),
}
