"""Drops texts in which a machine speaks of itself, and those of which refusals are a large part."""

import numpy as np
from pydantic import Field

from tasks.config import StageConfig
from tasks.gates import REFUSALS, SELF_IDENTIFICATIONS
from tasks.ingest.filters.rule import Limit, share
from tasks.ingest.texts import Texts


class RefusalRules(StageConfig):
    """Ours; the patterns are those of the gates for synthetic text (tasks/gates.py)."""

    max_self_identifications: int = Field(
        default=0, ge=0, description='Most phrases such as "as an AI language model" or "AIとして、".'
    )
    max_refusal_fraction: float = Field(
        default=0.2,
        ge=0,
        le=1,
        description="Largest share of lines with a refusal; shops apologise too, but not so often.",
    )


def measure(texts: Texts, rules: RefusalRules) -> dict[str, np.ndarray]:
    """Phrases of self-identification, and the share of non-blank lines that hold a refusal."""
    refusing = [sum(1 for line in text.split("\n") if REFUSALS.search(line)) for text in texts.strings]
    return {
        "self_identifications": np.array([len(SELF_IDENTIFICATIONS.findall(text)) for text in texts.strings]),
        "refusal_fraction": share(np.array(refusing), texts.lines.counts),
    }


def limits(rules: RefusalRules) -> tuple[Limit, ...]:
    return (
        Limit("self_identification", "self_identifications", "above", rules.max_self_identifications),
        Limit("refusals", "refusal_fraction", "above", rules.max_refusal_fraction),
    )
