"""Cuts lines of untranslated prose out of a text: many words, and not one character of the language."""

import functools
import re

from pydantic import Field

from tasks.config import StageConfig
from tasks.ingest.edits.edit import Counts, per_text

COLUMNS = ("lines", "chars")
_WORD = re.compile(r"(?<!\S)[A-Za-z][A-Za-z'’-]+(?=[\s,.;:!?]|$)")
_BLANK_LINES = re.compile(r"\n{3,}")


class ForeignLineRules(StageConfig):
    """Ours; for languages that are not written in Latin letters."""

    native: str = Field(description="A character by which a line is seen to be in the language (regular expression).")
    min_words: int = Field(default=6, ge=1, description="Words from which a line without such a character is cut.")


def edit(texts: list[str], rules: ForeignLineRules) -> tuple[list[str], Counts]:
    """Texts without lines of foreign prose; how many lines and characters were cut.

    Shorter lines stay: names, commands and code belong to a document in any language.
    """
    native = _compiled(rules.native)

    def one(text: str, counts: dict[str, int]) -> str:
        lines = text.split("\n")
        kept = [line for line in lines if native.search(line) or len(_WORD.findall(line)) < rules.min_words]
        if len(kept) == len(lines):
            return text
        left = _BLANK_LINES.sub("\n\n", "\n".join(kept)).strip("\n")
        counts |= {"lines": len(lines) - len(kept), "chars": len(text) - len(left)}
        return left

    return per_text(texts, COLUMNS, one)


@functools.lru_cache(maxsize=8)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)
