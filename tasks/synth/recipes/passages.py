"""Passages of prose out of documents, and the words that carry their meaning: what the QA recipes share."""

import re
from collections.abc import Iterator

from tasks.synth.recipes.recipe import CountTokens, RecipeConfig

MIN_SENTENCES = 2  # in a passage
MIN_PROSE = 0.8  # share of a paragraph that stands in whole sentences
MIN_PASSAGE_CHARS = {"en": 200, "ja": 80}
SENTENCE_ENDS = {"en": (".", "!", "?"), "ja": ("。", "！", "？")}
_SENTENCE_BREAK = {
    "en": re.compile(r"(?<=[.!?])\s+(?=[A-Z0-9\"'“(])"),
    "ja": re.compile(r"(?<=[。！？])\s*(?![」』）)])"),
}
_JAPANESE_WORD = re.compile("[\u4e00-\u9fff々〆]+|[\u30a0-\u30ff]{2,}|[A-Za-z0-9]{2,}")
_ENDINGS = ("ing", "ies", "ed", "es", "s", "e", "y")
_STOP_WORDS = (
    "a an the and or but if of in on at to for from by with as is are was were be been being it its this that these "
    "those which who whom what when where why how does do did can could will would may might must should not no you "
    "your they their he she his her we our i my me them there then than so such also into about over under between any "
    "all each has have had one two"
)
STOP_WORDS = frozenset(_STOP_WORDS.split())


def passages(text: str, config: RecipeConfig, count: CountTokens) -> Iterator[str]:
    """Runs of prose paragraphs of at most `chunk_tokens`; menus, tables and headings are left out."""
    held: list[str] = []
    for paragraph in re.split(r"\n\s*\n", text):
        plain = " ".join(paragraph.split())
        whole = [part for part in sentences(plain, config.language) if part.endswith(SENTENCE_ENDS[config.language])]
        if not whole or sum(map(len, whole)) < MIN_PROSE * len(plain):
            continue
        if held and count("\n".join([*held, plain])) > config.chunk_tokens:
            yield from _long_enough(held, config.language)
            held = []
        if count(plain) <= config.chunk_tokens:
            held.append(plain)
    yield from _long_enough(held, config.language)


def sentences(text: str, language: str) -> list[str]:
    """The sentences of one paragraph."""
    return [part for part in _SENTENCE_BREAK[language].split(text) if part]


def content_words(text: str, language: str) -> list[str]:
    """The words that carry the meaning, in order; inflected forms of a word are the same."""
    if language == "ja":
        return _JAPANESE_WORD.findall(text)
    words = (word.lower() for word in re.findall(r"[A-Za-z0-9][\w'-]*", text))
    return [stem(word) for word in words if word not in STOP_WORDS]


def stem(word: str) -> str:
    """Plural and singular, present and past are one word."""
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word


def _long_enough(paragraphs: list[str], language: str) -> Iterator[str]:
    passage = "\n".join(paragraphs)
    if (
        len(passage) >= MIN_PASSAGE_CHARS[language]
        and sum(len(sentences(p, language)) for p in paragraphs) >= MIN_SENTENCES
    ):
        yield passage
