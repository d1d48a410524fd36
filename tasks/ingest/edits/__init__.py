"""Edits that clean a text without judging it. A new one is one file here (knobs and `edit`) and one line in EDITS.

The order is that of application: repair first, so that the others see right characters.
"""

from tasks.ingest.edits import footer, foreign_lines, pii, punctuation, repair
from tasks.ingest.edits.edit import Edit

EDITS: dict[str, Edit] = {
    "repair": Edit(repair.RepairRules, repair.edit, repair.COLUMNS, moment="extracted"),
    "foreign_lines": Edit(foreign_lines.ForeignLineRules, foreign_lines.edit, foreign_lines.COLUMNS),
    "punctuation": Edit(punctuation.PunctuationRules, punctuation.edit, punctuation.COLUMNS),
    "footer": Edit(footer.FooterRules, footer.edit, footer.COLUMNS),
    "pii": Edit(pii.PiiRules, pii.edit, pii.COLUMNS, moment="kept"),
}
