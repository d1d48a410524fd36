"""Drops texts that are too short to say anything or too long to be one document."""

import numpy as np
from pydantic import Field

from tasks.config import StageConfig
from tasks.ingest.filters.rule import Limit
from tasks.ingest.texts import Texts


class LengthRules(StageConfig):
    """Swallow Corpus v1 for the lower bound; the upper one is ours."""

    min_chars: int = Field(default=400, ge=0, description="Fewest characters of a document (Swallow v1: 400).")
    max_chars: int = Field(default=1_000_000, ge=1, description="Most characters of a document.")


def measure(texts: Texts, rules: LengthRules) -> dict[str, np.ndarray]:
    """Characters, line breaks included. Source: Swallow Corpus v1 quality rules."""
    return {"chars": texts.lengths}


def limits(rules: LengthRules) -> tuple[Limit, ...]:
    return (
        Limit("too_short", "chars", "below", rules.min_chars),
        Limit("too_long", "chars", "above", rules.max_chars),
    )
