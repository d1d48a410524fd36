"""Scores of texts and statistics of scores. Pure functions."""

import math
import unicodedata
from collections import Counter
from collections.abc import Sequence

CHRF_ORDER = (
    6  # character n-grams of 1 to 6: Popović 2015, "chrF: character n-gram F-score for automatic MT evaluation"
)
CHRF_BETA = 2.0  # recall counts twice as much as precision: chrF2, the default of SacreBLEU
MAIN_SCRIPT_SHARE = 0.5  # an answer is in a language when most of its letters are; ours


def chrf(answer: str, reference: str) -> float:
    """chrF2 of one answer, 0 to 100: F-score of character n-grams, whitespace left out, as in SacreBLEU's `chrF2`.

    Orders that either text is too short for are left out of the means of precision and recall.
    """
    precision = recall = 0.0
    orders = 0
    for n in range(1, CHRF_ORDER + 1):
        said, wanted = _ngrams(answer, n), _ngrams(reference, n)
        if not said or not wanted:
            continue
        shared = (said & wanted).total()
        precision += shared / said.total()
        recall += shared / wanted.total()
        orders += 1
    if precision + recall == 0:
        return 0.0
    precision, recall = precision / orders, recall / orders
    return 100 * (1 + CHRF_BETA**2) * precision * recall / (CHRF_BETA**2 * precision + recall)


def in_language(text: str, language: str) -> bool:
    """Whether most letters of a text belong to the language's script, and for Japanese at least one is kana.

    It tells scripts apart, not languages that share one: French passes as English. Short greedy answers are too
    short for a statistical classifier. An unknown language code is judged as a Latin-script one.
    """
    letters = [char for char in text if unicodedata.category(char)[0] == "L"]
    if not letters:
        return False
    if language == "ja":
        japanese = sum(_is_kana(char) or _is_han(char) for char in letters)
        return japanese / len(letters) > MAIN_SCRIPT_SHARE and any(map(_is_kana, letters))
    return sum(unicodedata.name(char, "").startswith("LATIN") for char in letters) / len(letters) > MAIN_SCRIPT_SHARE


def mean(values: Sequence[float]) -> float:
    """Arithmetic mean; NaN of nothing."""
    return math.fsum(values) / len(values) if values else math.nan


def stderr_of_mean(values: Sequence[float]) -> float | None:
    """Standard error of a mean (sample deviation over root n); None below two values."""
    if len(values) < 2:
        return None
    centre = mean(values)
    return math.sqrt(math.fsum((value - centre) ** 2 for value in values) / (len(values) - 1) / len(values))


def stderr_of_ratio(numerators: Sequence[float], denominators: Sequence[float]) -> float | None:
    """Jackknife standard error of sum(numerators) / sum(denominators); None below two items.

    A ratio of sums over documents of unequal length has no simple error of a mean: each document is left out once.
    """
    n = len(numerators)
    if n < 2:
        return None
    top, bottom = math.fsum(numerators), math.fsum(denominators)
    if any(bottom - one <= 0 for one in denominators):
        return None
    without = [(top - a) / (bottom - b) for a, b in zip(numerators, denominators, strict=True)]
    centre = mean(without)
    return math.sqrt((n - 1) / n * math.fsum((value - centre) ** 2 for value in without))


def _ngrams(text: str, n: int) -> Counter[str]:
    dense = "".join(text.split())
    return Counter(dense[i : i + n] for i in range(len(dense) - n + 1))


def _is_kana(char: str) -> bool:
    return "\u3041" <= char <= "\u30ff" or "\uff66" <= char <= "\uff9f"


def _is_han(char: str) -> bool:
    return "\u4e00" <= char <= "\u9fff" or "\u3400" <= char <= "\u4dbf" or char == "々"
