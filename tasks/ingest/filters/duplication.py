"""Drops texts that repeat their own lines, sentences or blocks."""

from pydantic import Field

from tasks.config import StageConfig
from tasks.ingest.text import Text, duplicate_shares


class DuplicationRules(StageConfig):
    """Swallow v1 looks at lines and sentences, Gopher at lines and blocks (paragraphs); 1 switches a rule off."""

    max_lines: float = Field(default=0.30, ge=0, le=1, description="Share of repeated lines (Swallow v1, Gopher: 0.3).")
    max_line_chars: float = Field(default=0.20, ge=0, le=1, description="The same by characters (both: 0.2).")
    max_sentences: float = Field(default=1.0, ge=0, le=1, description="Share of repeated sentences (Swallow v1: 0.3).")
    max_sentence_chars: float = Field(default=1.0, ge=0, le=1, description="The same by characters (Swallow v1: 0.2).")
    max_blocks: float = Field(default=1.0, ge=0, le=1, description="Share of repeated blocks (Gopher: 0.3).")
    max_block_chars: float = Field(default=1.0, ge=0, le=1, description="The same by characters (Gopher: 0.2).")


def judge(text: Text, rules: DuplicationRules) -> str | None:
    """`duplicate_lines`, `duplicate_line_chars` and so on: an item with f copies repeats f-1 times.

    Source: Swallow Corpus v1 quality rules; Rae et al. 2021 (Gopher), table A1.
    """
    for name, by_count, by_chars in (
        ("line", rules.max_lines, rules.max_line_chars),
        ("sentence", rules.max_sentences, rules.max_sentence_chars),
        ("block", rules.max_blocks, rules.max_block_chars),
    ):
        if by_count >= 1 and by_chars >= 1:
            continue
        count, chars = duplicate_shares(getattr(text, f"{name}s"))
        if count > by_count:
            return f"duplicate_{name}s"
        if chars > by_chars:
            return f"duplicate_{name}_chars"
    return None
