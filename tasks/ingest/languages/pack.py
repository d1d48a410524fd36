"""What a language pack is: all that cleaning needs to know about one language."""

import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tasks.config import StageConfig

_NOT_TEXT = re.compile(
    "[\x00-\x08\x0b\x0e-\x1f\x7f-\x84\x86-\x9f\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff\ufffe\uffff]"
)
_LINE_BREAK = re.compile("\r\n?|[\x0c\x85\u2028\u2029]")
_SPACES = re.compile(r"(?<=\S)[ \t\u00a0\u2000-\u200a\u202f\u205f\u3000]+")
_BLANK_LINES = re.compile(r"\n{3,}")
_WORD = re.compile(r"(?<!\S)[A-Za-z][A-Za-z'’-]+(?=[\s,.;:!?]|$)")
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class LanguagePack:
    """One language. Thresholds are the published ones; a preset changes them by name."""

    code: str  # what documents carry in `language`
    name: str
    content_types: tuple[str, ...]  # of pages that may hold this language
    label: str  # what language identification calls it; "" = decided by the content type alone
    normalise: Callable[[str], str]  # pure and idempotent
    filters: Mapping[str, StageConfig]  # FILTERS name -> thresholds
    native: re.Pattern[str] | None = None  # a character by which a line is seen to be in this language


def without_foreign_lines(text: str, native: re.Pattern[str], min_words: int) -> str:
    """The text without lines of foreign prose: `min_words` words or more, and no native character.

    Shorter lines stay: names, commands and code belong to a document in any language.
    """
    kept = [line for line in text.split("\n") if native.search(line) or len(_WORD.findall(line)) < min_words]
    return _BLANK_LINES.sub("\n\n", "\n".join(kept)).strip("\n")


def tidy(text: str) -> str:
    """Unicode NFC, no control or invisible characters, single spaces inside lines, at most one blank line.

    Line breaks, indentation and paragraphs stay. Applying it twice changes nothing more.
    """
    text = _LINE_BREAK.sub("\n", _SURROGATE.sub("", text))
    text = unicodedata.normalize("NFC", _NOT_TEXT.sub("", text))
    lines = [_SPACES.sub(" ", line.replace("\u00a0", " ").replace("\x0b", " ")).rstrip() for line in text.split("\n")]
    return _BLANK_LINES.sub("\n\n", "\n".join(lines)).strip("\n")
