"""Undoes mojibake where that is certain, removes invisible characters, and makes half-width katakana full-width."""

import re
from collections import Counter

import numpy as np
from pydantic import Field

from tasks.config import StageConfig
from tasks.ingest.characters import HALF_KATAKANA, INVISIBLE, flag_table, flagged, wide_katakana
from tasks.ingest.edits.edit import Counts
from tasks.ingest.mojibake import MISTAKES, undo_mojibake

COLUMNS = ("mojibake", "invisible", "half_width")

# U+0080 to U+00AD may be bytes of mojibake that lost a neighbour: the normaliser removes them, not the repair.
_INVISIBLE_AND_NO_BYTE = re.compile(f"(?![\x80-\xad]){INVISIBLE.pattern}")
_NEEDS = flag_table({1: [*range(0xC2, 0xF5), *range(0xFF61, 0xFFA0)]})
_NEEDS[[code for code in range(0x10000) if _INVISIBLE_AND_NO_BYTE.match(chr(code))]] = 1
for _mistake in MISTAKES:
    _NEEDS[list(map(ord, _mistake.gate))] = 1


class RepairRules(StageConfig):
    """What to repair. None of it needs a guess: what cannot be undone with certainty stays as it is."""

    mojibake: bool = Field(default=True, description="UTF-8, Shift_JIS and EUC-JP that were read as another encoding.")
    invisible: bool = Field(default=True, description="Remove control, zero-width and direction characters.")
    half_width: bool = Field(default=True, description="Half-width katakana become full-width.")


def edit(texts: list[str], rules: RepairRules) -> tuple[list[str], Counts]:
    """Repaired texts, and how many characters were mojibake, invisible, or half-width katakana.

    Idempotent. Mojibake is undone where the bytes are strictly valid in the true encoding, and what comes out is
    letters that text is made of; doubtful sequences (`café…»`) only in a text that has at least as many clear ones.
    Lost bytes (U+FFFD, removed controls) are not guessed; the filter `garbled` measures what is left.
    """

    counts = {name: np.zeros(len(texts), np.int64) for name in COLUMNS}
    repaired = list(texts)
    for index in np.flatnonzero(flagged(texts, _NEEDS)):
        repaired[index], found = _repair(texts[index], rules)
        for name, number in found.items():
            counts[name][index] = number
    return repaired, counts


def _repair(text: str, rules: RepairRules) -> tuple[str, Counter[str]]:
    """One repair may lay bare another (a zero-width space inside mojibake), so they go on until none finds anything.

    They end: each makes the text shorter or leaves fewer half-width characters.
    """
    done: Counter[str] = Counter()
    while True:
        before = text
        if rules.invisible:
            text, number = _INVISIBLE_AND_NO_BYTE.subn("", text)
            done["invisible"] += number
        if rules.mojibake:
            text, number = undo_mojibake(text)
            done["mojibake"] += number
        if rules.half_width:
            done["half_width"] += len(HALF_KATAKANA.findall(text))
            text = wide_katakana(text)
        if text == before:
            return text, done
