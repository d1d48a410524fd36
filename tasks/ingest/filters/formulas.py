"""Keeps texts that hold mathematics: LaTeX commands, mathematical signs and numbers, but no tables of numbers."""

import unicodedata

import numpy as np
from pydantic import Field

from tasks.config import StageConfig
from tasks.ingest.filters.rule import Limit, share
from tasks.ingest.texts import Texts

_DIGIT, _SIGN, _LETTER, _BACKSLASH = 1, 2, 4, 8


class FormulaRules(StageConfig):
    """Thresholds are ours: a first cut like OpenWebMath's, before a classifier such as FineMath's."""

    min_marks: int = Field(default=5, ge=0, description="Fewest LaTeX commands and mathematical signs of a document.")
    min_fraction: float = Field(
        default=0.02, ge=0, le=1, description="Marks and digits over all characters; prose has less."
    )
    max_digit_fraction: float = Field(
        default=0.3, ge=0, le=1, description="Digits over all characters; a table of numbers has more."
    )


def measure(texts: Texts, rules: FormulaRules) -> dict[str, np.ndarray]:
    """A mark is a LaTeX command (a backslash and a letter) or a sign: = or any of Unicode's class Sm beyond ASCII.

    Source of the idea: Paster et al. 2023 (OpenWebMath), whose first filter looks for such commands and signs; Allal
    et al. 2025 (FineMath), which has word problems too: plain numbers and equal signs.
    """
    kinds = _KIND.take(texts.codes, mode="clip")
    digits = texts.count_at(np.flatnonzero(kinds == _DIGIT))
    commands = np.flatnonzero((kinds[:-1] == _BACKSLASH) & (kinds[1:] == _LETTER))
    last = texts.offsets[1:] - 1  # a backslash there stands before another text
    commands = np.setdiff1d(commands, last)
    marks = texts.count_at(commands) + texts.count_at(np.flatnonzero(kinds == _SIGN))
    return {
        "marks": marks,
        "fraction": share(marks + digits, texts.lengths),
        "digit_fraction": share(digits, texts.lengths),
    }


def limits(rules: FormulaRules) -> tuple[Limit, ...]:
    return (
        Limit("few_formulas", "marks", "below", rules.min_marks),
        Limit("little_mathematics", "fraction", "below", rules.min_fraction),
        Limit("table_of_numbers", "digit_fraction", "above", rules.max_digit_fraction),
    )


def _kinds() -> np.ndarray:
    kinds = np.zeros(0x110000, np.uint8)
    kinds[[code for code in range(0x80, 0x20000) if unicodedata.category(chr(code)) == "Sm"]] = _SIGN
    kinds[ord("=")] = _SIGN
    kinds[ord("0") : ord("9") + 1] = _DIGIT
    kinds[ord("\\")] = _BACKSLASH
    for first, last in ("AZ", "az"):
        kinds[ord(first) : ord(last) + 1] = _LETTER
    return kinds


_KIND = _kinds()
