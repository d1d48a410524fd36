"""Cuts the furniture of a site off the end of a text: sharing buttons, copyright lines, links to policies."""

import functools
import re

from pydantic import Field, field_validator

from tasks.config import StageConfig
from tasks.ingest.edits.edit import Counts, per_text
from tasks.ingest.lists import resolved, words

COLUMNS = ("lines", "chars")


class FooterRules(StageConfig):
    """Swallow Corpus v1; the keywords are ours, because Swallow's production list is not published as data."""

    keywords: str = Field(
        default="footer-ja",
        validate_default=True,
        description="List of keywords: a file of tasks/ingest/lists, or a URL.",
    )
    last_lines: int = Field(default=10, ge=1, description="Non-blank lines at the end that are looked at (Swallow 10).")
    max_fraction: float = Field(
        default=0.3, ge=0, le=1, description="Share of keywords in a line above which it begins the footer (0.3)."
    )

    @field_validator("keywords")
    @classmethod
    def _is_a_list(cls, reference: str) -> str:
        return resolved(reference)


def edit(texts: list[str], rules: FooterRules) -> tuple[list[str], Counts]:
    """Texts without their footers; how many non-blank lines and how many characters were cut.

    The last lines are read from top to bottom. Keywords are taken out of a line, longest first; where they are more
    than `max_fraction` of it, that line and everything below is cut. Source: Swallow Corpus v1, phase 4.
    """
    any_of_them, each, folded = _keywords(rules.keywords)

    def one(text: str, counts: dict[str, int]) -> str:
        last_lines = _last_lines(text, rules.last_lines)
        end_of_text = fold(text[last_lines[0][0] :]) if last_lines else ""
        if not any(keyword in end_of_text for keyword in folded):
            return text  # most texts, in a tenth of the time of a search
        for start, end in last_lines:
            if any_of_them.search(text, start, end) and _share(text[start:end].strip(), each) > rules.max_fraction:
                cut = text[start:]
                counts["lines"] = sum(1 for line in cut.split("\n") if line.strip())
                left = text[:start].rstrip()
                counts["chars"] = len(text) - len(left)
                return left
        return text

    return per_text(texts, COLUMNS, one)


def _last_lines(text: str, most: int) -> list[tuple[int, int]]:
    """Where the last non-blank lines are, from top to bottom."""
    found: list[tuple[int, int]] = []
    end = len(text)
    while end >= 0 and len(found) < most:
        start = text.rfind("\n", 0, end) + 1
        if text[start:end].strip():
            found.append((start, end))
        end = start - 1
    return found[::-1]


def _share(line: str, keywords: tuple[re.Pattern[str], ...]) -> float:
    left = line
    for keyword in keywords:
        left = keyword.sub("", left)
    return (len(line) - len(left)) / len(line)


def fold(text: str) -> str:
    """A form in which texts are equal if they are equal to `re.IGNORECASE`, for which İ and ı are i."""
    return text.replace("İ", "i").replace("ı", "i").casefold()


@functools.lru_cache(maxsize=8)
def _keywords(reference: str) -> tuple[re.Pattern[str], tuple[re.Pattern[str], ...], tuple[str, ...]]:
    """A pattern that finds any keyword, and one for each, longest first; capitals do not count. Their folded forms."""
    longest_first = sorted(words(reference), key=lambda word: (-len(word), word))
    flags = re.IGNORECASE
    each = tuple(re.compile(re.escape(word), flags) for word in longest_first)
    return re.compile("|".join(map(re.escape, longest_first)), flags), each, tuple(map(fold, longest_first))
