"""Drops texts that are too short to say anything or too long to be one document."""

from pydantic import Field

from tasks.config import StageConfig
from tasks.ingest.text import Text


class LengthRules(StageConfig):
    """Swallow Corpus v1 for the lower bound; the upper one is ours."""

    min_chars: int = Field(default=400, ge=0, description="Fewest characters of a document (Swallow v1: 400).")
    max_chars: int = Field(default=1_000_000, ge=1, description="Most characters of a document.")


def judge(text: Text, rules: LengthRules) -> str | None:
    """`too_short` or `too_long`, by characters. Source: Swallow Corpus v1 quality rules."""
    if len(text) < rules.min_chars:
        return "too_short"
    return "too_long" if len(text) > rules.max_chars else None
