"""Labels texts by offensive words, one column a list; as labels only, unless a limit is set."""

import numpy as np
from pydantic import Field, field_validator

from tasks.config import StageConfig
from tasks.ingest.filters.ng_words import scan_of
from tasks.ingest.filters.rule import Limit, share
from tasks.ingest.lists import resolved, stem
from tasks.ingest.texts import Texts


class ToxicityRules(StageConfig):
    """Ours: shares by list, for reports and what-if; a word list sees words and not what is meant by them."""

    lists: tuple[str, ...] = Field(
        default=("inappropriate-ja-offensive", "inappropriate-ja-sexual", "ldnoobw-ja"),
        validate_default=True,
        min_length=1,
        description="Word lists, each one label: files of tasks/ingest/lists, or URLs with #sha256=HEX.",
    )
    max_fraction: float = Field(
        default=1, ge=0, le=1, description="Largest share of the characters that one list may cover; 1 = labels only."
    )

    @field_validator("lists")
    @classmethod
    def _have_own_names(cls, lists: tuple[str, ...]) -> tuple[str, ...]:
        names = [stem(reference) for reference in lists]
        if len(set(names)) < len(names):
            raise ValueError(
                f"lists={names}: two have one name, and a name is a column of the sidecar. Rename one of the files."
            )
        return tuple(map(resolved, lists))


def measure(texts: Texts, rules: ToxicityRules) -> dict[str, np.ndarray]:
    """Characters of the words of each list over all characters; a word of two lists counts for the first."""
    matched = scan_of(rules.lists).matched(texts.strings)
    return {
        stem(reference): share(column, texts.lengths) for reference, column in zip(rules.lists, matched.T, strict=True)
    }


def limits(rules: ToxicityRules) -> tuple[Limit, ...]:
    return tuple(
        Limit(f"toxic:{stem(reference)}", stem(reference), "above", rules.max_fraction) for reference in rules.lists
    )
