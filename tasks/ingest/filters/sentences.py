"""Drops lists of words and endless lines by the length of sentences, and teasers by how sentences end."""

from pydantic import Field

from tasks.config import StageConfig
from tasks.ingest.text import Text

ELLIPSES = ("・", "･", "…", "‥", "...")


class SentenceRules(StageConfig):
    """Swallow Corpus v1. v2 keeps the mean and dropped the longest sentence."""

    min_mean_chars: float = Field(default=20, ge=0, description="Shortest mean sentence (Swallow v1: 20).")
    max_mean_chars: float = Field(default=90, ge=0, description="Longest mean sentence (Swallow v1: 90).")
    max_longest_chars: int = Field(default=200, ge=0, description="Longest sentence; 0 = no limit (Swallow v1: 200).")
    max_ellipsis_fraction: float = Field(
        default=0.2, ge=0, le=1, description="Share of sentences that end in an ellipsis (Swallow v1: 0.2)."
    )


def judge(text: Text, rules: SentenceRules) -> str | None:
    """The first of five reasons; a text without a sentence has none. Source: Swallow Corpus v1 quality rules."""
    sentences = text.sentences
    if not sentences:
        return "no_sentence"
    lengths = [len(sentence) for sentence in sentences]
    mean = sum(lengths) / len(lengths)
    if mean < rules.min_mean_chars:
        return "short_sentences"
    if mean > rules.max_mean_chars:
        return "long_sentences"
    if rules.max_longest_chars and max(lengths) > rules.max_longest_chars:
        return "longest_sentence"
    ellipses = sum(sentence.endswith(ELLIPSES) for sentence in sentences)
    return "ellipsis" if ellipses > rules.max_ellipsis_fraction * len(sentences) else None
