"""Gives a Japanese text one style of commas and one of full stops, that of its majority: ，． or 、。"""

import re

from pydantic import Field

from tasks.config import StageConfig
from tasks.ingest.edits.edit import Counts, per_text

# A mark counts where it ends a Japanese phrase, not where it groups digits or follows a Latin letter.
_JAPANESE = (
    "\u3005-\u3007\u303b\u3041-\u3096\u309d\u309e\u30a1-\u30fa\u30fc-\u30fe\u3400-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff"
)
_CLOSING = "」』）】〕〉》］｝)\\]}”’"
_AFTER_JAPANESE = f"(?<=[{_JAPANESE}{_CLOSING}])"
_NOT_AFTER_WIDE_ASCII = "(?<![０-９Ａ-Ｚａ-ｚ])"
_STYLES = {  # column -> (western, its Japanese mark)
    "commas": ("，", "、"),
    "full_stops": ("．", "。"),
}
_COUNTED = {mark: re.compile(_AFTER_JAPANESE + mark) for pair in _STYLES.values() for mark in pair}
_RUNS = {western: re.compile(f"{_NOT_AFTER_WIDE_ASCII}(?<!{western}){western}+") for western, _ in _STYLES.values()}
COLUMNS = tuple(_STYLES)


class PunctuationRules(StageConfig):
    """Swallow Corpus v1: marks after a Japanese character or a closing bracket vote; the majority decides."""

    commas: bool = Field(default=True, description="Full-width commas become 、 where they are the majority.")
    full_stops: bool = Field(default=True, description="Full-width full stops become 。 where they are the majority.")


def edit(texts: list[str], rules: PunctuationRules) -> tuple[list[str], Counts]:
    """Texts whose ， and ． are 、 and 。 where the former are more; how many characters were replaced.

    Commas and full stops vote by themselves. As many of one as of the other: nothing changes. The length of a run of
    marks stays, and so do marks after full-width digits and letters. Source: Swallow Corpus v1, phase 4.
    """

    def one(text: str, counts: dict[str, int]) -> str:
        for column, (western, japanese) in _STYLES.items():
            if not getattr(rules, column) or western not in text:
                continue
            if len(_COUNTED[western].findall(text)) <= len(_COUNTED[japanese].findall(text)):
                continue
            before = text.count(western)
            text = _RUNS[western].sub(lambda found, mark=japanese: mark * len(found[0]), text)
            counts[column] = before - text.count(western)
        return text

    return per_text(texts, COLUMNS, one)
