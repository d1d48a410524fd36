"""What a language pack is: all that cleaning needs to know about one language."""

import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tasks.config import StageConfig
from tasks.ingest.characters import INVISIBLE

PAGES = ("text/html", "application/xhtml+xml", "text/plain")
_LINE_BREAK = re.compile("\r\n?|[\x0c\x85\u2028\u2029]")
_SURROGATE = re.compile("[\ud800-\udfff]")
# Any character of these and of INVISIBLE: most texts have none, and one search is faster than three replacements.
_UNTIDY = re.compile(f"[\r\x0c\x85\u2028\u2029\ud800-\udfff{INVISIBLE.pattern[1:]}")
_WIDE = r"\t\u00a0\u2000-\u200a\u202f\u205f\u3000"
# Inside a line, but single blanks. What stands before is asked last, because `re` looks fast for a first character.
_SPACES = re.compile(rf"(?: (?<=\S )[ {_WIDE}]+|[{_WIDE}](?<=\S[{_WIDE}])[ {_WIDE}]*)")
_BLANK_LINES = re.compile(r"\n{3,}")


@dataclass(frozen=True)
class LanguagePack:
    """One language. Thresholds are the published ones; a preset changes them by name.

    Lists of words, patterns of personal data and classes of characters are knobs of the filters and edits that use
    them, so a pack holds all of them, and what a pack says is in the identity of what it cleaned.
    """

    code: str  # what documents carry in `language`
    name: str
    content_types: tuple[str, ...]  # of pages that may hold this language
    label: str  # what language identification calls it; "" = decided by the content type alone
    normalise: Callable[[str], str]  # pure and idempotent
    filters: Mapping[str, StageConfig]  # FILTERS name -> thresholds
    edits: Mapping[str, StageConfig] = field(default_factory=dict)  # EDITS name -> knobs


def tidy(text: str) -> str:
    """Unicode NFC, no control or invisible characters, single spaces inside lines, at most one blank line.

    Line breaks, indentation and paragraphs stay. Applying it twice changes nothing more.
    """
    if _UNTIDY.search(text):
        text = INVISIBLE.sub("", _LINE_BREAK.sub("\n", _SURROGATE.sub("", text)))
    text = _SPACES.sub(" ", unicodedata.normalize("NFC", text).replace("\u00a0", " "))
    return _BLANK_LINES.sub("\n\n", "\n".join([line.rstrip() for line in text.split("\n")])).strip("\n")
