"""The slow oracle of filters by lists and patterns: plain definitions, text by text."""

import math
import re
from collections.abc import Callable
from typing import Any

from tasks import gates
from tasks.ingest.lists import stem, words

Answer = tuple[dict[str, float], list[tuple[str, bool]]]  # numbers, and reasons in order with whether they hold
JAPANESE = re.compile(
    "[\u3041-\u3096\u30a1-\u30fa\u3005\u3007\u303b\u3400-\u9fff\uf900-\ufaff\U00020000-\U0002ffff、，。．！？]"
)


def small(text: str) -> str:
    return re.sub("[A-Z]", lambda capital: capital[0].lower(), text)


def covered(text: str, lists: list[list[str]]) -> list[int]:
    """Characters that the words of each list cover: from left to right the longest word that stands alone."""
    text, list_of = small(text), {}
    for number, listed in enumerate(lists):
        for word in listed:
            list_of.setdefault(small(word), number)
    longest_first: dict[str, list[str]] = {}
    for word in sorted(list_of, key=len, reverse=True):
        longest_first.setdefault(word[0], []).append(word)
    found, place = [0] * len(lists), 0
    while place < len(text):
        for word in longest_first.get(text[place], ()):
            joins = (text[:place][-1:] + word[0], word[-1] + text[place + len(word) :][:1])
            if text.startswith(word, place) and not any(
                re.fullmatch("[0-9a-z]{2}|[ァ-ヺー-ヾ]{2}", join) for join in joins
            ):
                found[list_of[word]] += len(word)
                place += len(word)
                break
        else:
            place += 1
    return found


def over(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def ng_words(text: str, rules: Any) -> Answer:
    letters = len(JAPANESE.findall(text)) if rules.of_japanese else len(text)
    fraction = over(sum(covered(text, [[*words(reference)] for reference in rules.lists])), letters)
    return {"fraction": fraction}, [("ng_words", fraction >= rules.drop_fraction)]


def toxicity(text: str, rules: Any) -> Answer:
    found = covered(text, [[*words(reference)] for reference in rules.lists])
    shares = {stem(name): over(chars, len(text)) for name, chars in zip(rules.lists, found, strict=True)}
    return shares, [(f"toxic:{name}", share > rules.max_fraction) for name, share in shares.items()]


def refusals(text: str, rules: Any) -> Answer:
    lines = [line for line in text.split("\n") if line.strip()]
    fraction = over(sum(bool(gates.REFUSALS.search(line)) for line in lines), len(lines))
    phrases = sum(1 for _ in gates.SELF_IDENTIFICATIONS.finditer(text))
    return {"self_identifications": phrases, "refusal_fraction": fraction}, [
        ("self_identification", phrases > rules.max_self_identifications),
        ("refusals", fraction > rules.max_refusal_fraction),
    ]


def garbled(text: str, rules: Any) -> Answer:
    lost = over(sum(char == "\ufffd" or "\ue000" <= char <= "\uf8ff" for char in text), len(text))
    signs = re.findall(
        "[縺繧繝縲][^\x00-\x7f]|[ÃÂ][\x80-\xbf‚-›Œ-ž€]|ã[‚ƒ€\x81-\x83]|â€|ï¼|[‚ƒ][@-~\x80-\xff](?=[‚ƒ])"
        "|[¤¥][¡-ö](?=[¤¥])|[､･][ｱ-ﾟ](?=[､･])",
        text,
    )
    mojibake = over(sum(map(len, signs)), len(text))
    return {"lost_fraction": lost, "mojibake_fraction": mojibake}, [
        ("lost_characters", lost > rules.max_lost_fraction),
        ("mojibake", mojibake > rules.max_mojibake_fraction),
    ]


def script(text: str, rules: Any) -> Answer:
    letters = sum(any(first <= ord(char) <= last for first, last in rules.letters) for char in text)
    fraction = over(letters, sum(not char.isspace() for char in text))
    return {"letters": letters, "fraction": fraction}, [
        ("few_letters_of_the_script", letters < rules.min_letters),
        ("other_script", fraction < rules.min_fraction),
    ]


def url(text: str, rules: Any) -> Answer:
    return {"blocked": 0}, [("url:blocked", False)]  # texts of the oracle have no address


ORACLE_OF_LISTS: dict[str, Callable[[str, Any], Answer]] = {
    "url": url,
    "script": script,
    "garbled": garbled,
    "ng_words": ng_words,
    "toxicity": toxicity,
    "refusals": refusals,
}
