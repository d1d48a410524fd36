"""Sets of rules by name, as published. Language packs and `CleanConfig.rules` name one; any threshold can change."""

from collections.abc import Mapping
from typing import Any

from tasks.config import StageConfig
from tasks.ingest.filters.c4 import C4Rules
from tasks.ingest.filters.character_ngrams import CharacterNgramRules
from tasks.ingest.filters.code_style import CodeStyleRules
from tasks.ingest.filters.duplication import DuplicationRules
from tasks.ingest.filters.formulas import FormulaRules
from tasks.ingest.filters.japanese import JapaneseRules
from tasks.ingest.filters.length import LengthRules
from tasks.ingest.filters.lines import LineRules
from tasks.ingest.filters.python_source import PythonRules
from tasks.ingest.filters.sentences import SentenceRules
from tasks.ingest.filters.word_ngrams import WordNgramRules
from tasks.ingest.filters.words import WordRules

Rules = Mapping[str, StageConfig]  # FILTERS name -> thresholds

_SWALLOW_DUPLICATION = DuplicationRules(max_sentences=0.30, max_sentence_chars=0.20)
_GOPHER: Rules = {
    "length": LengthRules(min_chars=0),
    "words": WordRules(),
    "duplication": DuplicationRules(max_blocks=0.30, max_block_chars=0.20),
    "word_ngrams": WordNgramRules(),
}

RULES: dict[str, Rules] = {
    # Swallow Corpus v1 (Okazaki et al. 2024): all quality rules.
    "swallow-v1": {
        "length": LengthRules(),
        "japanese": JapaneseRules(),
        "sentences": SentenceRules(),
        "duplication": _SWALLOW_DUPLICATION,
        "character_ngrams": CharacterNgramRules(),
    },
    # v2 dropped the longest sentence and the n-grams; of the rules it says nothing about, all stay.
    "swallow-v2": {
        "length": LengthRules(),
        "japanese": JapaneseRules(),
        "sentences": SentenceRules(max_longest_chars=0),
        "duplication": _SWALLOW_DUPLICATION,
    },
    # Rae et al. 2021: quality and repetition.
    "gopher-en": _GOPHER,
    # Penedo et al. 2024: Gopher, C4 without the rule on ends of lines, three rules of its own.
    "fineweb-en": {**_GOPHER, "lines": LineRules(), "c4": C4Rules()},
    # Fujii et al. 2025 (SwallowCode): it parses, style of 7 or more, comments in English or Japanese.
    "code": {
        "length": LengthRules(min_chars=200, max_chars=200_000),
        "python_source": PythonRules(),
        "code_style": CodeStyleRules(),
    },
    # Texts with mathematics in them, in any language: to be combined with the repetition rules of one.
    "math": {"length": LengthRules(min_chars=200), "formulas": FormulaRules()},
}


def rebased(filters: Mapping[str, Any], before: Rules, after: Rules) -> dict[str, Any]:
    """Thresholds changed from one set of rules, as the same changes to another.

    Args:
        filters: name -> thresholds (dicts or configs) or None, made from `before`.
    """
    given = {name: _plain(rules) for name, rules in filters.items() if rules is not None}
    old = {name: _plain(rules) for name, rules in before.items()}
    made = {name: _plain(rules) for name, rules in after.items() if name in given or name not in old}
    for name, rules in given.items():
        changes = {key: value for key, value in rules.items() if name not in old or old[name].get(key) != value}
        if changes:
            made[name] = made.get(name, {}) | changes
    return made


def _plain(rules: StageConfig | Mapping[str, Any]) -> dict[str, Any]:
    return rules.model_dump() if isinstance(rules, StageConfig) else dict(rules)
